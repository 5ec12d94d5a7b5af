// Entry of an OnnxThread: owns the sessions, answers one message at a time. May not touch sockets, files or settings.
import { parentPort, workerData } from "node:worker_threads";
import { asMoevieError } from "@moevie/contracts";
import { OnnxSession, parseDevice } from "./onnx-session.ts";
import type { OnnxThreadOptions, TensorView, ThreadAnswer, ThreadRequest } from "./onnx-thread.ts";

const options = workerData as OnnxThreadOptions;
const sessions = new Map<string, OnnxSession>();
const heldTensors = new Map<string, TensorView>();
if (parentPort === null) throw new Error("onnx-thread-main runs inside a thread");
const port = parentPort;

async function answer(request: ThreadRequest): Promise<{ outputs: Record<string, TensorView>; computeUs: number }> {
  if (request.kind === "load") {
    const session = await OnnxSession.create(request.model, parseDevice(options.device), options.intraOpThreads);
    await sessions.get(request.key)?.release();
    sessions.set(request.key, session);
    return { outputs: {}, computeUs: 0 };
  }
  if (request.kind === "drop") {
    for (const name of request.held) heldTensors.delete(name);
    return { outputs: {}, computeUs: 0 };
  }
  const session = sessions.get(request.key);
  if (session === undefined) throw new Error(`no graph ${request.key} is loaded in ${options.name}`);
  if (request.kind === "unload") {
    sessions.delete(request.key);
    await session.release();
    return { outputs: {}, computeUs: 0 };
  }
  const startMs = performance.now();
  const feeds = { ...request.feeds };
  for (const [input, name] of Object.entries(request.held?.feed ?? {})) {
    const tensor = heldTensors.get(name);
    if (tensor === undefined) throw new Error(`no tensor ${name} is held in ${options.name}`);
    feeds[input] = tensor;
  }
  const outputs = await session.run(feeds, request.fetches);
  for (const [output, name] of Object.entries(request.held?.keep ?? {})) {
    const tensor = outputs[output];
    if (tensor !== undefined) heldTensors.set(name, tensor);
    delete outputs[output];
  }
  return { outputs, computeUs: (performance.now() - startMs) * 1000 };
}

let last = Promise.resolve();
port.on("message", (request: ThreadRequest) => {
  last = last.then(async () => {
    let message: ThreadAnswer;
    try {
      message = { id: request.id, ok: true, ...(await answer(request)) };
    } catch (thrown) {
      const error = asMoevieError(thrown);
      message = { id: request.id, ok: false, reason: error.reason, message: error.message, detail: error.detail ?? "" };
    }
    const transfer = message.ok
      ? [...new Set(Object.values(message.outputs).map((view) => view.data.buffer))].filter(
          (buffer) => buffer instanceof ArrayBuffer,
        )
      : [];
    port.postMessage(message, transfer);
  });
});
