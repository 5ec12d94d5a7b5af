// The controller process.
import { runService } from "@moevie/runtime";
import { startController } from "./service.ts";

runService({ name: "controller", start: startController });
