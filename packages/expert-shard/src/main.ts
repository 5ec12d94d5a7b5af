// The expert-shard process.
import { runService } from "@moevie/runtime";
import { startExpertShard } from "./service.ts";

runService({ name: "expert-shard", start: startExpertShard });
