// PSNR and SSIM of a part of an image, as BasicSR computes them; images are lists of planes of values in [0, 255].
'use strict';

const Metrics = (() => {
  const TAPS = 11, SIGMA = 1.5;
  const kernel = Array.from({length: TAPS}, (_, i) => Math.exp(-((i - 5) ** 2) / (2 * SIGMA ** 2)));
  const total = kernel.reduce((sum, value) => sum + value);
  const weights = kernel.map(value => value / total);

  // RGBA bytes to Y of BT.601 (not rounded), or to R, G and B.
  function planes(pixels, channel) {
    const count = pixels.length / 4;
    if (channel === 'y') {
      const y = new Float64Array(count);
      for (let i = 0; i < count; i++) {
        y[i] = (65.481 * pixels[4 * i] + 128.553 * pixels[4 * i + 1] + 24.966 * pixels[4 * i + 2]) / 255 + 16;
      }
      return [y];
    }
    return [0, 1, 2].map(c => Float64Array.from({length: count}, (_, i) => pixels[4 * i + c]));
  }

  // `width`: of the whole planes; `box`: {left, top, right, bottom}, whole pixels.
  function psnr(image, gt, width, box) {
    let sum = 0;
    image.forEach((plane, c) => {
      for (let y = box.top; y < box.bottom; y++) {
        for (let i = y * width + box.left; i < y * width + box.right; i++) sum += (plane[i] - gt[c][i]) ** 2;
      }
    });
    const count = image.length * (box.right - box.left) * (box.bottom - box.top);
    return 10 * Math.log10(255 ** 2 * count / sum);
  }

  // The 11x11 Gaussian window of all products at once, rows first, then columns; valid part only.
  function blurred(value, width, box) {
    const w = box.right - box.left, h = box.bottom - box.top, inner = w - TAPS + 1;
    const rows = new Float64Array(inner * h), out = new Float64Array(inner * (h - TAPS + 1));
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < inner; x++) {
        let sum = 0;
        for (let k = 0; k < TAPS; k++) sum += weights[k] * value((y + box.top) * width + box.left + x + k);
        rows[y * inner + x] = sum;
      }
    }
    for (let i = 0; i < out.length; i++) {
      let sum = 0;
      for (let k = 0; k < TAPS; k++) sum += weights[k] * rows[i + k * inner];
      out[i] = sum;
    }
    return out;
  }

  // NaN where the box is smaller than the window.
  function ssim(image, gt, width, box) {
    if (box.right - box.left < TAPS || box.bottom - box.top < TAPS) return NaN;
    const c1 = (0.01 * 255) ** 2, c2 = (0.03 * 255) ** 2;
    const means = image.map((a, c) => {
      const b = gt[c];
      const ma = blurred(i => a[i], width, box), mb = blurred(i => b[i], width, box);
      const aa = blurred(i => a[i] * a[i], width, box), bb = blurred(i => b[i] * b[i], width, box);
      const ab = blurred(i => a[i] * b[i], width, box);
      let sum = 0;
      for (let i = 0; i < ma.length; i++) {
        const m = ma[i] * mb[i], squares = ma[i] ** 2 + mb[i] ** 2;
        sum += (2 * m + c1) * (2 * (ab[i] - m) + c2) / ((squares + c1) * (aa[i] + bb[i] - squares + c2));
      }
      return sum / ma.length;
    });
    return means.reduce((sum, value) => sum + value) / means.length;
  }

  return {planes, psnr, ssim};
})();
