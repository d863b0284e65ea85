// Two versions of an image with a slider between them, their PSNR and SSIM, and the same view by every version.
'use strict';

const Viewer = (() => {
  const {scenes} = JSON.parse(document.getElementById('viewer-data').textContent);
  const find = id => document.getElementById(id);
  const canvas = find('view'), slider = find('slider'), pictures = new Pictures(() => comparison.draw(), failed);
  const selects = {left: find('left'), right: find('right')}, chosen = {left: '', right: ''};
  const comparison = new Comparison({
    canvas, slider, zoom: find('zoom'),
    paint: (side, ...where) => paint(comparison.context, chosen[side], ...where),
    drawn: () => {
      clearTimeout(measuring);
      measuring = setTimeout(measure, 100);
    },
  });
  const {camera} = comparison;
  let scene = scenes[0], measuring = 0, measuredAs = '';

  const version = name => scene.versions.find(each => each.name === name);
  const values = name => pictures.values(version(name).src, scene);

  function failed(src) {
    const {name} = scene.versions.find(each => each.src === src) || {};
    if (name) find('message').textContent = `${name}: the picture cannot be shown: ${src.slice(0, 200)}`;
  }

  // A part of a version in image pixels; x, y is where the image's corner comes to lie.
  function paint(target, name, part, x, y, zoom) {
    const {image, ready} = pictures.get(version(name).src);
    if (!ready) return;
    // LR is drawn at the size of HR, pixel by pixel.
    const step = version(name).lr ? scene.scale : 1;
    const left = Math.floor(part.left / step), top = Math.floor(part.top / step);
    const right = Math.ceil(part.right / step), bottom = Math.ceil(part.bottom / step);
    target.imageSmoothingEnabled = zoom * step < 1;
    target.drawImage(image, left, top, right - left, bottom - top,
      x + left * step * zoom, y + top * step * zoom, (right - left) * step * zoom, (bottom - top) * step * zoom);
  }

  function shown(psnr, ssim) {
    const texts = [psnr === Infinity ? '∞ dB' : `${psnr.toFixed(2)} dB`, ssim.toFixed(4)];
    return texts.filter((_, place) => !isNaN([psnr, ssim][place])).join(' / ');
  }

  // The view without the border that the protocol leaves out; null if nothing of it is left.
  function measured() {
    const {width, height, border} = scene, part = camera.seen();
    const inner = {
      left: Math.max(part.left, border), top: Math.max(part.top, border),
      right: Math.min(part.right, width - border), bottom: Math.min(part.bottom, height - border),
    };
    return inner.right > inner.left && inner.bottom > inner.top ? inner : null;
  }

  function measure() {
    const part = camera.seen(), state = JSON.stringify([scenes.indexOf(scene), chosen, part, pictures.ready]);
    if (state === measuredAs) return; // only the slider has moved
    measuredAs = state;
    const box = measured(), gt = version('HR') ? values('HR') : null;
    const compared = name => name !== 'HR' && !version(name).lr && box && gt ? values(name) : null;
    for (const side of ['left', 'right']) {
      const name = chosen[side], {psnr, ssim} = version(name).metrics || {}, own = compared(name);
      const ofImage = shown(Number(psnr), Number(ssim));
      find(`${side}-name`).textContent = name;
      find(`${side}-image`).textContent = ofImage ? `image ${ofImage}` : '';
      find(`${side}-view`).textContent = own
        ? `view ${shown(Metrics.psnr(own, gt, scene.width, box), Metrics.ssim(own, gt, scene.width, box))}`
        : name === 'HR' ? 'the original' : '';
    }
    canvas.setAttribute('aria-label', `${scene.set} ${scene.name}: ${chosen.left} on the left, ${chosen.right} on the right`);
    const worth = scene.versions.map(({name}) => {
      const own = compared(name);
      return own ? Metrics.psnr(own, gt, scene.width, box) : NaN;
    });
    if (part.right > part.left && part.bottom > part.top) strip(part, worth);
  }

  // The same view by every version, with its PSNR.
  function strip(part, worth) {
    const width = part.right - part.left, height = part.bottom - part.top, zoom = Math.min(320 / width, 240 / height);
    const best = Math.max(...worth.filter(value => !isNaN(value))).toFixed(2);
    find('strip').replaceChildren(...scene.versions.map(({name}, place) => {
      const button = document.createElement('button'), picture = document.createElement('canvas');
      const label = document.createElement('span'), value = document.createElement('span');
      [picture.width, picture.height] = [Math.max(1, Math.round(width * zoom)), Math.max(1, Math.round(height * zoom))];
      paint(picture.getContext('2d'), name, part, -part.left * zoom, -part.top * zoom, zoom);
      label.textContent = name;
      value.textContent = shown(worth[place], NaN);
      value.className = worth[place].toFixed(2) === best ? 'best' : '';
      button.type = 'button';
      button.dataset.name = name;
      button.setAttribute('aria-current', String(name === chosen.right));
      button.title = `Show ${name} on the right`;
      button.append(picture, label, value);
      button.onclick = () => choose('right', name);
      return button;
    }));
  }

  function choose(side, name) {
    chosen[side] = selects[side].value = name;
    comparison.draw();
  }

  // To another version on a side, so many places further.
  function step(side, by) {
    const names = scene.versions.map(each => each.name);
    choose(side, names[(names.indexOf(chosen[side]) + by + names.length) % names.length]);
  }

  function swap() {
    const {left, right} = chosen;
    choose('left', right);
    choose('right', left);
  }

  function open(place) {
    if (scene !== scenes[place]) pictures.forget();
    scene = scenes[place];
    find('scene').value = place;
    const names = scene.versions.map(each => each.name);
    const otherwise = {left: names.includes('bicubic') ? 'bicubic' : names[0], right: names[names.length - 1]};
    for (const side of ['left', 'right']) {
      selects[side].replaceChildren(...names.map(name => new Option(name, name)));
      chosen[side] = selects[side].value = names.includes(chosen[side]) ? chosen[side] : otherwise[side];
    }
    scene.versions.forEach(({src}) => pictures.get(src));
    find('message').textContent = scene.linked
      ? 'These pictures are linked, not embedded; of linked ones a browser may refuse to compute the view’s PSNR.' : '';
    comparison.open(scene.width, scene.height);
  }

  // To another image, so many places further.
  function turn(by) {
    open((scenes.indexOf(scene) + by + scenes.length) % scenes.length);
  }

  return {scenes, comparison, selects, find, choose, step, swap, open, turn};
})();
