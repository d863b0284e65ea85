// Upscales pictures by the network, tile by tile, and by bicubic. page.js sends and takes its messages.

// ITU-R BT.601, Y in [16, 235] of 255, and back; of values in [0, 1].
const YCBCR = [[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]]
  .map(row => row.map(value => value / 255));
const RGB = [[1.16438356, 0, 1.59602688], [1.16438356, -0.39176229, -0.81296765], [1.16438356, 2.01723214, 0]];
const OFFSET = [16 / 255, 128 / 255, 128 / 255], NONE = [0, 0, 0];

let ort, facts, network, bicubic;

async function open(given) {
  facts = given;
  const gpu = await navigator.gpu?.requestAdapter().catch(() => null);
  ort = await import(gpu ? './ort/ort.webgpu.min.mjs' : './ort/ort.wasm.min.mjs');
  // Threads share memory, which a browser allows within a page that is isolated from others alone.
  const threads = self.crossOriginIsolated ? navigator.hardwareConcurrency || 1 : 1;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = 'error';
  const session = (file, device) => ort.InferenceSession.create(file, {executionProviders: [device]});
  bicubic = await session('bicubic.onnx', 'wasm');
  network = gpu ? await session('network.onnx', 'webgpu').catch(() => null) : null;
  if (network) return 'WebGPU';
  network = await session('network.onnx', 'wasm');
  return `WebAssembly, ${threads} thread${threads > 1 ? 's' : ''}`;
}

// A part of planes of values {count, height, width, values}, of some of the planes.
function cut(whole, first, count, {top, left, height, width}) {
  const values = new Float32Array(count * height * width);
  for (let row = 0; row < count * height; row++) {
    const plane = first + Math.floor(row / height);
    const from = (plane * whole.height + top + row % height) * whole.width + left;
    values.set(whole.values.subarray(from, from + width), row * width);
  }
  return {count, height, width, values};
}

const planes = (tile, first, count) => cut(tile, first, count, {top: 0, left: 0, ...tile});

async function run(session, {count, height, width, values}) {
  const outputs = await session.run({lq: new ort.Tensor('float32', values, [1, count, height, width])});
  const output = outputs[session.outputNames[0]];
  return {count, height: output.dims[2], width: output.dims[3], values: output.data};
}

// matrix * (v + before) + after of the three values v of each pixel.
function mix({count, height, width, values}, matrix, before, after) {
  const size = height * width, mixed = new Float32Array(3 * size);
  for (let pixel = 0; pixel < size; pixel++) {
    for (let plane = 0; plane < 3; plane++) {
      let sum = after[plane];
      for (let from = 0; from < 3; from++) sum += matrix[plane][from] * (values[from * size + pixel] + before[from]);
      mixed[plane * size + pixel] = sum;
    }
  }
  return {count, height, width, values: mixed};
}

// RGB by the network; a network of luma gets Y, and bicubic the colours.
async function byNetwork(tile) {
  if (facts.channels === 3) return run(network, planes(tile, 0, 3));
  const ycbcr = mix(planes(tile, 0, 3), YCBCR, NONE, OFFSET);
  const upscaled = await run(bicubic, ycbcr);
  upscaled.values.set((await run(network, planes(ycbcr, 0, 1))).values);
  return mix(upscaled, RGB, OFFSET.map(value => -value), NONE);
}

// Put a part of an upscaled tile into an RGBA picture; the array rounds and clips.
function put(picture, [rgb, alpha], part, top, left) {
  const size = rgb.height * rgb.width;
  for (let row = 0; row < part.height; row++) {
    let to = ((top + row) * picture.width + left) * 4, from = (part.top + row) * rgb.width + part.left;
    for (let column = 0; column < part.width; column++, from++, to += 4) {
      for (let plane = 0; plane < 3; plane++) picture.values[to + plane] = rgb.values[plane * size + from] * 255;
      picture.values[to + 3] = alpha ? alpha.values[from] * 255 : 255;
    }
  }
}

async function upscale({data, width, height}) {
  const pixels = width * height, {scale, tile, overlap} = facts;
  const whole = {count: 4, height, width, values: new Float32Array(4 * pixels)};
  for (let at = 0; at < data.length; at++) whole.values[at % 4 * pixels + Math.floor(at / 4)] = data[at] / 255;
  const transparent = whole.values.subarray(3 * pixels).some(value => value < 1);
  const picture = () => ({width: width * scale, values: new Uint8ClampedArray(4 * pixels * scale ** 2)});
  const results = {network: picture(), bicubic: picture()};
  const total = Math.ceil(width / tile) * Math.ceil(height / tile);
  let done = 0;
  for (let top = 0; top < height; top += tile) {
    for (let left = 0; left < width; left += tile) {
      self.postMessage({kind: 'progress', done, total});
      const up = Math.max(top - overlap, 0), before = Math.max(left - overlap, 0);
      const seen = cut(whole, 0, 4, {
        top: up, left: before,
        height: Math.min(top + tile + overlap, height) - up, width: Math.min(left + tile + overlap, width) - before,
      });
      const part = {
        top: (top - up) * scale, left: (left - before) * scale,
        height: Math.min(tile, height - top) * scale, width: Math.min(tile, width - left) * scale,
      };
      const alpha = transparent ? await run(bicubic, planes(seen, 3, 1)) : null;
      const rgb = await byNetwork(seen);
      if (rgb.values.some(Number.isNaN)) throw new Error('the network makes values that are not numbers');
      put(results.network, [rgb, alpha], part, top * scale, left * scale);
      put(results.bicubic, [await run(bicubic, planes(seen, 0, 3)), alpha], part, top * scale, left * scale);
      done += 1;
    }
  }
  const {network: {values: sr}, bicubic: {values: other}} = results;
  self.postMessage(
    {kind: 'result', width: width * scale, height: height * scale, network: sr, bicubic: other}, [sr.buffer, other.buffer]);
}

self.onmessage = async ({data}) => {
  try {
    if (data.kind === 'open') self.postMessage({kind: 'ready', device: await open(data.facts)});
    else await upscale(data);
  } catch (error) {
    const what = data.kind === 'open' ? 'the network cannot be loaded' : 'the photo cannot be upscaled';
    self.postMessage({kind: 'fault', text: `${what}: ${error.message || error}`});
  }
};
