// Starts the text-encoder: prompt to context rows. Holds weights, never jobs.
import { BundleError, graphFor, openBundle } from "@moevie/bundle";
import { MoevieError, limit, type TextContext } from "@moevie/contracts";
import { OnnxThread, runService } from "@moevie/runtime";
import { readTextEncoderConfig } from "./config.ts";
import { ContextCache } from "./context-cache.ts";
import { createEncoder } from "./encode.ts";
import { RowsGraph } from "./rows-graph.ts";
import { textEncoderService } from "./service.ts";
import { Tokens } from "./tokens.ts";

runService({
  name: "text-encoder",
  async start({ env }) {
    const config = readTextEncoderConfig(env);
    const bundle = await openBundle(config.MOEVIE_BUNDLE).catch((thrown: unknown) => {
      if (thrown instanceof BundleError) throw new MoevieError("BUNDLE_CORRUPT", thrown.message, { cause: thrown });
      throw thrown;
    });
    const { text } = bundle.manifest;
    const tokens = await Tokens.read(bundle.path(text.tokenizer), text.maxTokens, text.cleaning);
    const thread = OnnxThread.start({
      name: "text-encoder",
      device: config.MOEVIE_DEVICE,
      intraOpThreads: config.MOEVIE_INTRA_OP_THREADS,
    });
    const graph = await RowsGraph.load(
      thread,
      await bundle.graph(graphFor(bundle.manifest, "text-encoder", config.MOEVIE_DEVICE)),
      text.width,
    );
    const encode = createEncoder({
      tokens,
      rowsOf: (ids, used) => graph.run(ids, used),
      width: text.width,
      cache: new ContextCache<TextContext>(limit("contextCacheBytesMax")),
    });
    // Ready means the model ran: the empty text is also what guidance asks for first.
    await encode("");
    return { grpc: [textEncoderService(encode)], close: () => thread.close() };
  },
});
