// What the logs of a whole cluster say at their most talkative: job and trace ids, and no prompt unless it was asked for.
import { afterEach, describe, expect, it } from "vitest";
import { CliSession } from "./cli-session.ts";

const PROMPT = "a violet zeppelin above the harbour";
const NEGATIVE = "crimson umbrellas";
const WORDS = /violet|zeppelin|harbour|crimson|umbrella/;

let session: CliSession;
afterEach(() => session.close());

/** Log lines of every service while a clip is made, as objects. */
async function logsOfClip(environment: Readonly<Record<string, string>>): Promise<Record<string, unknown>[]> {
  session = new CliSession({ MOEVIE_LOG_LEVEL: "trace", MOEVIE_LOG_FORMAT: "json", ...environment });
  const flags = ["--negative", NEGATIVE, "--size", "256x256", "--seconds", "0.5", "--steps", "2"];
  const made = await session.run("generate", PROMPT, "--model", await session.tinyBundle(), ...flags, "-o", "c.mp4");
  expect(made).toMatchObject({ code: 0 });
  return made.stderr
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe("the logs", () => {
  it("of every service hold no prompt; those of a job hold its id and its trace", async () => {
    const logs = await logsOfClip({});
    const services = new Set(logs.map(({ service }) => String(service).replace(/-\d+$/, "")));
    expect([...services].sort()).toEqual(["decoder", "expert-shard", "gateway", "router", "scheduler", "text-encoder"]);
    expect(logs.filter((line) => WORDS.test(JSON.stringify(line)))).toEqual([]);
    const ofJob = logs.filter(({ msg }) => ["job accepted", "job leased", "job ended"].includes(String(msg)));
    expect(ofJob).toHaveLength(3);
    expect(new Set(ofJob.map(({ job }) => job)).size).toBe(1);
    expect(ofJob.map(({ trace }) => trace)).toEqual(Array.from({ length: 3 }, () => ofJob[0]?.["trace"]));
    expect(ofJob[0]?.["trace"]).toMatch(/^[0-9a-f]{32}$/);
  });

  it("hold the prompt once when MOEVIE_LOG_PROMPTS asks for it", async () => {
    const logs = await logsOfClip({ MOEVIE_LOG_PROMPTS: "1" });
    const told = logs.filter((line) => WORDS.test(JSON.stringify(line)));
    expect(told.map(({ service, msg, prompt }) => [service, msg, prompt])).toEqual([
      ["gateway", "job accepted", PROMPT],
    ]);
  });
});
