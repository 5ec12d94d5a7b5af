// The router process.
import { runService } from "@moevie/runtime";
import { startRouter } from "./service.ts";

runService({ name: "router", start: startRouter });
