// What the mouse, fingers, keys, lists and buttons do in the viewer.
'use strict';

(() => {
  const {scenes, camera, canvas, slider, selects, find, choose, step, swap, open, turn, slide, look} = Viewer;

  // Pointers: one drags the slider (near it, or anywhere while the whole image is seen) or the image, two zoom.
  const pointers = new Map();
  let dragging = '', pinch = 0;
  const at = event => {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    return {x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio};
  };
  const slides = point =>
    camera.fitted || Math.abs(point.x - slider.value / 1000 * canvas.width) < 16 * (window.devicePixelRatio || 1);
  const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };

  canvas.addEventListener('pointerdown', event => {
    const point = at(event);
    pointers.set(event.pointerId, point);
    canvas.setPointerCapture(event.pointerId);
    dragging = pointers.size === 2 ? 'pinch' : slides(point) ? 'slider' : 'image';
    if (dragging === 'pinch') pinch = spread();
    if (dragging === 'slider') slide(point.x / canvas.width);
    canvas.classList.toggle('panning', dragging === 'image');
  });
  canvas.addEventListener('pointermove', event => {
    const point = at(event), before = pointers.get(event.pointerId);
    canvas.classList.toggle('sliding', slides(point));
    if (!before) return;
    pointers.set(event.pointerId, point);
    if (dragging === 'slider') slide(point.x / canvas.width);
    else if (dragging === 'image') look(() => camera.move(point.x - before.x, point.y - before.y));
    else if (dragging === 'pinch' && pointers.size === 2) {
      const factor = spread() / pinch, [a, b] = [...pointers.values()];
      if (factor > 1.3 || factor < 0.77) {
        look(() => camera.zoomBy(factor > 1 ? 1 : -1, (a.x + b.x) / 2, (a.y + b.y) / 2));
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
    look(() => camera.zoomBy(event.deltaY < 0 ? 1 : -1, point.x, point.y));
  }, {passive: false});

  const fit = () => look(() => camera.fit()), one = () => look(() => camera.zoomTo(1));
  const larger = () => look(() => camera.zoomBy(1)), smaller = () => look(() => camera.zoomBy(-1));
  const move = (dx, dy) => look(() => camera.move(dx, dy));
  const keys = {
    ArrowLeft: event => event.shiftKey ? move(80, 0) : slide(slider.value / 1000 - 0.02),
    ArrowRight: event => event.shiftKey ? move(-80, 0) : slide(slider.value / 1000 + 0.02),
    ArrowUp: event => event.shiftKey ? move(0, 80) : step('right', -1),
    ArrowDown: event => event.shiftKey ? move(0, -80) : step('right', 1),
    '+': larger, '=': larger, '-': smaller, 0: fit, 1: one,
    l: () => step('left', 1), r: () => step('right', 1), s: swap, n: () => turn(1), p: () => turn(-1),
  };
  canvas.addEventListener('keydown', event => {
    const act = keys[event.key];
    if (act && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      act(event);
    }
  });

  const groups = new Map();
  scenes.forEach(({set, name, scale}, place) => {
    const title = `${set} x${scale}`;
    if (!groups.has(title)) groups.set(title, Object.assign(document.createElement('optgroup'), {label: title}));
    groups.get(title).append(new Option(name, place));
  });
  find('scene').append(...groups.values());
  find('scene').onchange = event => open(Number(event.target.value));
  for (const side of ['left', 'right']) selects[side].onchange = event => choose(side, event.target.value);
  slider.oninput = Viewer.draw;
  Object.entries({fit, one, in: larger, out: smaller, swap}).forEach(([id, act]) => { find(id).onclick = act; });
  for (const button of document.querySelectorAll('[data-scene]')) {
    button.onclick = () => {
      open(Number(button.dataset.scene));
      find('images').scrollIntoView();
      canvas.focus({preventScroll: true});
    };
  }

  function resize() {
    const ratio = window.devicePixelRatio || 1, {width, height} = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    look(() => camera.resized());
  }
  open(0);
  resize();
  new ResizeObserver(resize).observe(canvas);
})();
