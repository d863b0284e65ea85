// Pictures by their address: loaded once, and their values read where a page may read them.
'use strict';

class Pictures {
  constructor(onload, onerror) {
    [this.onload, this.onerror] = [onload, onerror];
    this.forget();
  }

  forget() {
    this.loaded = new Map();
    this.ready = 0;
  }

  get(src) {
    if (!this.loaded.has(src)) {
      const picture = {image: new Image(), ready: false, planes: undefined}, {loaded} = this;
      picture.image.onload = () => {
        if (loaded !== this.loaded) return; // forgotten meanwhile
        picture.ready = true;
        this.ready += 1;
        this.onload();
      };
      picture.image.onerror = () => this.onerror(src);
      picture.image.src = src;
      loaded.set(src, picture);
    }
    return this.loaded.get(src);
  }

  // Planes of values; undefined before the picture is loaded, null for a linked file that a page may not read.
  values(src, {width, height, channel}) {
    const picture = this.get(src);
    if (picture.planes === undefined && picture.ready) {
      const copy = document.createElement('canvas');
      [copy.width, copy.height] = [width, height];
      const reader = copy.getContext('2d', {willReadFrequently: true});
      reader.drawImage(picture.image, 0, 0);
      try {
        picture.planes = Metrics.planes(reader.getImageData(0, 0, width, height).data, channel);
      } catch {
        picture.planes = null;
      }
    }
    return picture.planes;
  }
}
