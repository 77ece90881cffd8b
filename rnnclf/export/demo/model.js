// The exported file in onnxruntime-web.

import * as ort from "./ort.js";

ort.env.wasm.wasmPaths = { wasm: new URL("ort.wasm", import.meta.url).href };
ort.env.wasm.numThreads = 1; // more would need a page that is isolated from others

export const runtime = `onnxruntime-web ${ort.env.versions?.web ?? ""}`.trim();

/** A model that answers one sequence at a time. */
export class Model {
  constructor(session, inputs) {
    [this.session, this.inputs, this.last] = [session, inputs, Promise.resolve()];
  }

  static async load(url, inputs) {
    return new Model(await ort.InferenceSession.create(url), inputs);
  }

  /** The probabilities of all classes after the first `steps` steps of a sequence. */
  probabilities(sequence, steps = sequence.steps) {
    const answer = this.last.then(() => this.#run(sequence, steps)); // a session does one thing at a time
    this.last = answer.catch(() => {});
    return answer;
  }

  async #run({ values, elapsed, steps: all }, steps) {
    const channels = values.length / all;
    const make = {
      x: (type) => tensor(type, values.slice(0, steps * channels), [1, steps, channels]),
      lengths: () => new ort.Tensor("int64", BigInt64Array.of(BigInt(steps)), [1]),
      elapsed: (type) => tensor(type, elapsed ? elapsed.slice(0, steps) : Array(steps).fill(1), [1, steps]),
    };
    const feeds = Object.fromEntries(this.inputs.map(({ name, type }) => [name, make[name](type)]));
    const { probabilities } = await this.session.run(feeds, ["probabilities"]);
    return Array.from(probabilities.data);
  }
}

function tensor(type, numbers, shape) {
  return new ort.Tensor(type, type === "float64" ? Float64Array.from(numbers) : Float32Array.from(numbers), shape);
}
