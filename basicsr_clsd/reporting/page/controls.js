// What keys, lists and buttons do in the viewer, beside those of every comparison.
'use strict';

(() => {
  const {scenes, comparison, selects, find, choose, step, swap, open, turn} = Viewer;
  const {ArrowUp: up, ArrowDown: down} = comparison.keys;
  Object.assign(comparison.keys, {
    ArrowUp: event => event.shiftKey ? up(event) : step('right', -1),
    ArrowDown: event => event.shiftKey ? down(event) : step('right', 1),
    l: () => step('left', 1), r: () => step('right', 1), s: swap, n: () => turn(1), p: () => turn(-1),
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
  const zooms = {fit: 'fit', one: 'one', in: 'larger', out: 'smaller'};
  Object.entries(zooms).forEach(([id, act]) => { find(id).onclick = () => comparison[act](); });
  find('swap').onclick = swap;
  for (const button of document.querySelectorAll('[data-scene]')) {
    button.onclick = () => {
      open(Number(button.dataset.scene));
      find('images').scrollIntoView();
      comparison.canvas.focus({preventScroll: true});
    };
  }

  open(0);
  comparison.start();
})();
