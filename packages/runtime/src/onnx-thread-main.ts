// Entry of an OnnxThread: owns the sessions, answers one message at a time. May not touch sockets, files or settings.
import { parentPort, workerData } from "node:worker_threads";
import { asMoevieError } from "@moevie/contracts";
import { Carried, OnnxSession, PreparedRun, parseDevice } from "./onnx-session.ts";
import type { GraphAnswer, OnnxThreadOptions, PlannedRun, ThreadAnswer, ThreadRequest } from "./onnx-thread.ts";

/** A graph's bytes are kept, its weights are not among them: a session that ran out of memory is made anew. */
interface Loaded {
  readonly model: Uint8Array;
  session: OnnxSession | undefined;
}

const options = workerData as OnnxThreadOptions;
const sessions = new Map<string, Loaded>();
const plans = new Map<number, { readonly key: string; prepared: () => PreparedRun }>();
const rows = new Map<number, Carried>();
if (parentPort === null) throw new Error("onnx-thread-main runs inside a thread");
const port = parentPort;

const NOTHING: GraphAnswer = { outputs: {}, computeUs: 0 };

function create(model: Uint8Array): Promise<OnnxSession> {
  return OnnxSession.create(model, parseDevice(options.device), options.intraOpThreads);
}

function loaded(key: string): Loaded {
  const found = sessions.get(key);
  if (found === undefined) throw new Error(`no graph ${key} is loaded in ${options.name}`);
  return found;
}

/** Runs with the graph's session. One that ran out of memory is let go with all it had taken, and made anew by the next run. */
async function withSession<T>(key: string, use: (session: OnnxSession) => Promise<T>): Promise<T> {
  const found = loaded(key);
  found.session ??= await create(found.model);
  try {
    return await use(found.session);
  } catch (thrown) {
    if (asMoevieError(thrown).reason === "OUT_OF_MEMORY") {
      const { session } = found;
      found.session = undefined;
      await session.release();
    }
    throw thrown;
  }
}

async function answer(request: Exclude<ThreadRequest, PlannedRun>): Promise<GraphAnswer> {
  switch (request.kind) {
    case "load": {
      const session = await create(request.model);
      await sessions.get(request.key)?.session?.release();
      sessions.set(request.key, { model: request.model, session });
      return NOTHING;
    }
    case "unload": {
      const { session } = loaded(request.key);
      sessions.delete(request.key);
      await session?.release();
      return NOTHING;
    }
    case "plan": {
      // Made by the first run, so that what is wrong with it is that run's error.
      let made: PreparedRun | undefined;
      plans.set(request.plan, {
        key: request.key,
        prepared: () => (made ??= new PreparedRun(request.inputs, request.outputs)),
      });
      return NOTHING;
    }
    case "forget":
      plans.delete(request.what);
      rows.delete(request.what);
      return NOTHING;
    case "run": {
      const startMs = performance.now();
      const outputs = await withSession(request.key, (session) =>
        session.run(request.feeds, request.fetches, carriedBy(request.row)),
      );
      return { outputs, computeUs: (performance.now() - startMs) * 1000 };
    }
  }
}

function carriedBy(row: number | undefined): Carried | undefined {
  if (row === undefined) return undefined;
  const carried = rows.get(row) ?? new Carried();
  rows.set(row, carried);
  return carried;
}

function isPlanned(request: ThreadRequest): request is PlannedRun {
  return Array.isArray(request);
}

/** The answer to a planned run: its outputs only when this run made them. */
async function runPlan([id, plan, rows]: PlannedRun): Promise<ThreadAnswer> {
  const planned = plans.get(plan);
  if (planned === undefined) throw new Error(`no plan ${plan} is known in ${options.name}`);
  const prepared = planned.prepared();
  const known = prepared.outputs !== undefined;
  const startMs = performance.now();
  await withSession(planned.key, (session) => session.runPrepared(prepared, rows));
  const computeUs = (performance.now() - startMs) * 1000;
  return known ? [id, computeUs] : { id, ok: true, outputs: prepared.outputs ?? {}, computeUs };
}

function failure(id: number, thrown: unknown): ThreadAnswer {
  const error = asMoevieError(thrown);
  return { id, ok: false, reason: error.reason, message: error.message, detail: error.detail ?? "" };
}

/** Buffers of the answer that may be handed over instead of copied. */
function transferable(message: ThreadAnswer): ArrayBuffer[] {
  if (!("id" in message) || !message.ok) return [];
  const buffers = new Set(Object.values(message.outputs).map((view) => view.data.buffer));
  return [...buffers].filter((buffer) => buffer instanceof ArrayBuffer);
}

async function handle(request: ThreadRequest): Promise<void> {
  const id = isPlanned(request) ? request[0] : request.id;
  let message: ThreadAnswer;
  try {
    if (isPlanned(request)) message = await runPlan(request);
    else {
      const { outputs, computeUs } = await answer(request);
      message = { id, ok: true, outputs, computeUs };
    }
  } catch (thrown) {
    message = failure(id, thrown);
  }
  if (id !== 0) port.postMessage(message, transferable(message));
}

let last = Promise.resolve();
port.on("message", (request: ThreadRequest) => {
  last = last.then(() => handle(request));
});
