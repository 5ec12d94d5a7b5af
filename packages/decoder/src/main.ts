// Entry of the decoder process.
import { runService } from "@moevie/runtime";
import { startDecoder } from "./service.ts";

runService({ name: "decoder", start: startDecoder });
