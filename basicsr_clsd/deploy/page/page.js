// A photo in, the same photo upscaled out: what is on the page. The network runs in worker.js.
'use strict';

(() => {
  const find = id => document.getElementById(id);
  const facts = JSON.parse(find('facts').textContent);
  const pictures = {left: document.createElement('canvas'), right: document.createElement('canvas')};
  let worker, name = '', started = 0, comparison;

  function say(text, fault = false) {
    find('message').textContent = text;
    find('message').classList.toggle('fault', fault);
  }

  // The network, in a thread of its own; asked anew after one was cancelled.
  function begin(text) {
    find('file').disabled = true;
    worker = new Worker('worker.js', {type: 'module'});
    worker.onmessage = ({data}) => answers[data.kind](data);
    worker.onerror = event => {
      event.preventDefault();
      answers.fault({text: `the network cannot be loaded: ${event.message || 'a file of this page is missing'}`});
    };
    worker.postMessage({kind: 'open', facts});
    say(text);
  }

  const answers = {
    ready({device}) {
      find('file').disabled = false;
      document.body.dataset.device = device;
      say(`Ready, on ${device}.`);
    },
    progress({done, total}) {
      find('progress').max = total;
      find('progress').value = done;
    },
    result({width, height, bicubic, network}) {
      working(false);
      for (const [side, pixels] of [['left', bicubic], ['right', network]]) {
        Object.assign(pictures[side], {width, height});
        pictures[side].getContext('2d').putImageData(new ImageData(pixels, width, height), 0, 0);
      }
      say(`${name}: ${width} x ${height} pixels after ${((performance.now() - started) / 1000).toFixed(1)} s`);
      find('result').hidden = false;
      if (!comparison) {
        comparison = new Comparison({canvas: find('view'), slider: find('slider'), zoom: find('zoom'), paint});
        comparison.start();
      }
      comparison.open(width, height);
      find('view').scrollIntoView({block: 'nearest'});
    },
    fault({text}) {
      working(false);
      say(text, true);
    },
  };

  function paint(side, {left, top, right, bottom}, x, y, zoom) {
    const {context} = comparison, width = right - left, height = bottom - top;
    context.imageSmoothingEnabled = zoom < 1;
    context.drawImage(pictures[side], left, top, width, height,
      x + left * zoom, y + top * zoom, width * zoom, height * zoom);
  }

  function working(busy) {
    find('work').hidden = !busy;
    find('file').disabled = busy;
  }

  // Whether the browser has canvases of this size: some refuse larger ones by leaving them empty.
  function holds(width, height) {
    const canvas = Object.assign(document.createElement('canvas'), {width, height}), context = canvas.getContext('2d');
    if (!context) return false;
    context.fillRect(width - 1, height - 1, 1, 1);
    return context.getImageData(width - 1, height - 1, 1, 1).data[3] === 255;
  }

  async function upscale(file) {
    if (!file || find('file').disabled) return;
    name = file.name || 'photo';
    let bitmap;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      say(`${name}: not an image that this browser can open`, true);
      return;
    }
    const {width, height} = bitmap;
    if (!holds(width * facts.scale, height * facts.scale)) {
      say(`${name}: ${width * facts.scale} x ${height * facts.scale} pixels are more than this browser can hold`, true);
      return;
    }
    const canvas = Object.assign(document.createElement('canvas'), {width, height});
    const context = canvas.getContext('2d', {willReadFrequently: true});
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const {data} = context.getImageData(0, 0, width, height);
    started = performance.now();
    find('result').hidden = true;
    find('progress').removeAttribute('value');
    working(true);
    say(`${name}: ${width} x ${height} pixels are upscaled …`);
    worker.postMessage({kind: 'upscale', data, width, height}, [data.buffer]);
  }

  find('file').onchange = event => {
    upscale(event.target.files[0]);
    event.target.value = ''; // the same photo can be chosen again
  };
  document.addEventListener('paste', event => upscale(event.clipboardData.files[0]));
  for (const kind of ['dragover', 'dragleave', 'drop']) {
    document.addEventListener(kind, event => {
      event.preventDefault();
      find('drop').classList.toggle('over', kind === 'dragover');
      if (kind === 'drop') upscale(event.dataTransfer.files[0]);
    });
  }
  find('cancel').onclick = () => {
    worker.terminate();
    working(false);
    begin(`${name}: cancelled; the network is loaded again …`);
  };
  for (const act of ['fit', 'one', 'larger', 'smaller']) find(act).onclick = () => comparison[act]();
  find('save').onclick = () => pictures.right.toBlob(blob => {
    if (!blob) {
      say(`${name}: this browser cannot write a PNG of this size`, true);
      return;
    }
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = `${name.replace(/\.[^.]*$/, '')}_x${facts.scale}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });

  if (location.protocol === 'file:') {
    say('A browser does not let a page of files run a network. In this folder, run "python -m http.server" and open http://localhost:8000.', true);
  } else {
    begin('Loading the network …');
  }
})();
