// Where an image lies on a canvas and how large it is drawn; all lengths are the canvas's pixels.
'use strict';

class Camera {
  // Canvas pixels per image pixel: whole, so that pixels stay square.
  static ZOOMS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
  static IN_SIGHT = 40; // of the image, however far it is moved

  constructor(canvas) {
    this.canvas = canvas;
    this.image = {width: 1, height: 1};
    this.fit();
  }

  // The zoom at which the whole image is seen.
  whole() {
    return Math.min(this.canvas.width / this.image.width, this.canvas.height / this.image.height);
  }

  fit() {
    const whole = this.whole();
    this.zoom = whole >= 1 ? Math.floor(whole) : whole;
    this.x = Math.round((this.canvas.width - this.image.width * this.zoom) / 2);
    this.y = Math.round((this.canvas.height - this.image.height * this.zoom) / 2);
    this.fitted = true;
  }

  // What is at x, y stays there.
  zoomTo(zoom, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const factor = zoom / this.zoom;
    this.x = Math.round(x - (x - this.x) * factor);
    this.y = Math.round(y - (y - this.y) * factor);
    this.zoom = zoom;
    this.hold();
  }

  // To the next zoom, larger (direction > 0) or smaller, down to the whole image.
  zoomBy(direction, x, y) {
    const larger = Camera.ZOOMS.find(zoom => zoom > this.zoom), smaller = Camera.ZOOMS.findLast(zoom => zoom < this.zoom);
    if (direction > 0) {
      if (larger !== undefined) this.zoomTo(larger, x, y);
    } else if (smaller === undefined || smaller <= this.whole()) this.fit();
    else this.zoomTo(smaller, x, y);
  }

  move(dx, dy) {
    this.x += Math.round(dx);
    this.y += Math.round(dy);
    this.hold();
  }

  // After the canvas has changed its size.
  resized() {
    if (this.fitted) this.fit(); else this.hold();
  }

  hold() {
    const within = (value, image, canvas) =>
      Math.min(Math.max(value, Camera.IN_SIGHT - image * this.zoom), canvas - Camera.IN_SIGHT);
    this.x = within(this.x, this.image.width, this.canvas.width);
    this.y = within(this.y, this.image.height, this.canvas.height);
    this.fitted = false;
  }

  // The part of the image that is seen, in whole image pixels.
  seen() {
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    return {
      left: within(Math.floor(-this.x / this.zoom), this.image.width),
      top: within(Math.floor(-this.y / this.zoom), this.image.height),
      right: within(Math.ceil((this.canvas.width - this.x) / this.zoom), this.image.width),
      bottom: within(Math.ceil((this.canvas.height - this.y) / this.zoom), this.image.height),
    };
  }
}
