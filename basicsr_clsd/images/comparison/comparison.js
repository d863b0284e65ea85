// A canvas with two versions of an image and a line between them, which mouse, fingers and keys move, as the image.
'use strict';

class Comparison {
  static NEAR = 16; // CSS pixels from the line within which a pointer takes it
  static STEP = 0.02; // of the width, by a key
  static MOVE = 80; // canvas pixels, by a key

  // canvas, slider (an input of 0 to 1000) and zoom (an output) are elements; paint(side, part, x, y, zoom) draws a part
  // of the version on a side, whose corner comes to lie at x, y; drawn() is called after each drawing.
  constructor({canvas, slider, zoom, paint, drawn = () => {}}) {
    Object.assign(this, {canvas, slider, zoom, paint, drawn});
    this.context = canvas.getContext('2d');
    this.camera = new Camera(canvas);
    this.keys = this.ownKeys();
    slider.oninput = () => this.draw();
    this.listen();
  }

  // Show an image of another size.
  open(width, height) {
    this.camera.image = {width, height};
    this.look(camera => camera.fit());
  }

  // Draw from now on, at the size that the canvas has on the page; to be called once there is something to paint.
  start() {
    this.resize();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  draw() {
    const {canvas, context, camera} = this, cut = Math.round(this.slider.value / 1000 * canvas.width), part = camera.seen();
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const [side, from, to] of [['left', 0, cut], ['right', cut, canvas.width]]) {
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, canvas.height);
      context.clip();
      this.paint(side, part, camera.x, camera.y, camera.zoom);
      context.restore();
    }
    const ratio = window.devicePixelRatio || 1;
    context.fillStyle = '#fff';
    context.fillRect(cut - ratio, 0, 2 * ratio, canvas.height);
    context.fillStyle = '#000';
    context.fillRect(cut + ratio, 0, ratio, canvas.height);
    context.fillRect(cut - 2 * ratio, 0, ratio, canvas.height);
    this.zoom.textContent = `${Math.round(camera.zoom * 100)} %`;
    canvas.style.touchAction = camera.fitted ? 'pan-y' : 'none';
    this.drawn();
  }

  slide(fraction) {
    this.slider.value = Math.round(Math.min(Math.max(fraction, 0), 1) * 1000);
    this.draw();
  }

  // Draw what `act` has made of the camera.
  look(act) {
    act(this.camera);
    this.draw();
  }

  fit() { this.look(camera => camera.fit()); }
  one() { this.look(camera => camera.zoomTo(1)); }
  larger() { this.look(camera => camera.zoomBy(1)); }
  smaller() { this.look(camera => camera.zoomBy(-1)); }

  ownKeys() {
    const across = (x, y, by) => event =>
      event.shiftKey ? this.look(camera => camera.move(x, y)) : by && this.slide(this.slider.value / 1000 + by);
    const larger = () => this.larger();
    return {
      ArrowLeft: across(Comparison.MOVE, 0, -Comparison.STEP), ArrowRight: across(-Comparison.MOVE, 0, Comparison.STEP),
      ArrowUp: across(0, Comparison.MOVE), ArrowDown: across(0, -Comparison.MOVE),
      '+': larger, '=': larger, '-': () => this.smaller(), 0: () => this.fit(), 1: () => this.one(),
    };
  }

  // One pointer drags the line (near it, or anywhere while the whole image is seen) or the image, two zoom.
  listen() {
    const {canvas, camera, slider} = this, pointers = new Map();
    let dragging = '', pinch = 0;
    const at = event => {
      const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
      return {x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio};
    };
    const slides = point => camera.fitted
      || Math.abs(point.x - slider.value / 1000 * canvas.width) < Comparison.NEAR * (window.devicePixelRatio || 1);
    const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };

    canvas.addEventListener('pointerdown', event => {
      const point = at(event);
      pointers.set(event.pointerId, point);
      canvas.setPointerCapture(event.pointerId);
      dragging = pointers.size === 2 ? 'pinch' : slides(point) ? 'slider' : 'image';
      if (dragging === 'pinch') pinch = spread();
      if (dragging === 'slider') this.slide(point.x / canvas.width);
      canvas.classList.toggle('panning', dragging === 'image');
    });
    canvas.addEventListener('pointermove', event => {
      const point = at(event), before = pointers.get(event.pointerId);
      canvas.classList.toggle('sliding', slides(point));
      if (!before) return;
      pointers.set(event.pointerId, point);
      if (dragging === 'slider') this.slide(point.x / canvas.width);
      else if (dragging === 'image') this.look(() => camera.move(point.x - before.x, point.y - before.y));
      else if (dragging === 'pinch' && pointers.size === 2) {
        const factor = spread() / pinch, [a, b] = [...pointers.values()];
        if (factor > 1.3 || factor < 0.77) {
          this.look(() => camera.zoomBy(factor > 1 ? 1 : -1, (a.x + b.x) / 2, (a.y + b.y) / 2));
          pinch = spread();
        }
      }
    });
    for (const kind of ['pointerup', 'pointercancel']) {
      canvas.addEventListener(kind, event => {
        pointers.delete(event.pointerId);
        dragging = '';
        canvas.classList.remove('panning');
      });
    }
    canvas.addEventListener('wheel', event => {
      if (event.deltaY > 0 && camera.fitted) return; // the page scrolls on
      event.preventDefault();
      const point = at(event);
      this.look(() => camera.zoomBy(event.deltaY < 0 ? 1 : -1, point.x, point.y));
    }, {passive: false});
    canvas.addEventListener('keydown', event => {
      const act = this.keys[event.key];
      if (act && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        act(event);
      }
    });
  }

  resize() {
    const {canvas} = this, ratio = window.devicePixelRatio || 1, {width, height} = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    this.look(camera => camera.resized());
  }
}
