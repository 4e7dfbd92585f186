// Runs one model in onnxruntime-web on the word of edgekit: session.py calls open, run and time.
"use strict";
const edgekit = (() => {
  const ARRAYS = {
    float32: Float32Array, float64: Float64Array, float16: globalThis.Float16Array ?? Uint16Array,
    int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array,
    uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array,
  };
  const bytes = async (path) => (await fetch(path)).arrayBuffer();
  let session = null;

  // One buffer holds all inputs; a typed array must begin at a multiple of its element, so each is cut out.
  const feeds = async (parts) => {
    const data = await bytes("feeds");
    return Object.fromEntries(parts.map(({ name, type, dims, start, size }) =>
      [name, new ort.Tensor(type, new ARRAYS[type](data.slice(start, start + size)), dims)]));
  };

  return {
    async open(threads, level) {
      ort.env.logLevel = "error";
      ort.env.wasm.numThreads = threads;
      ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
      session = await ort.InferenceSession.create(new Uint8Array(await bytes("model")),
        { executionProviders: ["wasm"], graphOptimizationLevel: level, logSeverityLevel: 3 });
      return {
        inputs: session.inputMetadata.map(({ name, shape }) => ({ name, shape: shape ?? [] })),
        outputs: [...session.outputNames], isolated: crossOriginIsolated, threads: ort.env.wasm.numThreads,
      };
    },

    async run(parts) {
      const found = await session.run(await feeds(parts));
      const tensors = session.outputNames.map((name) => found[name]);
      const pieces = tensors.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      await fetch("answer", { method: "POST", body: new Blob(pieces) });
      return tensors.map(({ type, dims }, index) => ({ type, dims: [...dims], size: pieces[index].length }));
    },

    // Milliseconds of each inference of one sample, inputs and outputs in the page's memory.
    async time(parts, runs, budget) {
      const fed = await feeds(parts);
      const found = [];
      for (let index = 0; index < 3; index++) await session.run(fed);
      const end = performance.now() + budget;
      while (found.length < runs && (performance.now() < end || found.length < 5)) {
        const start = performance.now();
        await session.run(fed);
        found.push(performance.now() - start);
      }
      return found;
    },
  };
})();
