// The command line itself: names, flags, help and examples. Each command's code is loaded only when it runs.
import { Command, CommanderError, Option } from "commander";
import type { CommandContext, CommandResult, RawFlags } from "./command.ts";
import { EXIT, type ExitCode } from "./failure.ts";

/** Runs one command: arguments in order, then its flags. */
export type CommandRunner = (
  load: () => Promise<CommandFunction>,
  args: readonly string[],
  flags: RawFlags,
) => Promise<void>;
type CommandFunction = (context: CommandContext, args: readonly string[], flags: RawFlags) => Promise<CommandResult>;

/** Commands that only hold others, and what those are about. */
const GROUPS = {
  experts: "show how experts are used and where they lie, and plan it",
  jobs: "show videos that failed for no fault of their caller, and queue them again",
  store: "look over the jobs' folder, and put a copy in the place of a damaged database",
} as const;

const SERVER_DEFAULT = "127.0.0.1:7900";

interface Description {
  /** Command that this one is a part of. */
  readonly group?: keyof typeof GROUPS;
  readonly usage: string;
  /** Runs when its group is named alone. */
  readonly isDefault?: boolean;
  readonly summary: string;
  readonly example: string;
  /** [flags, description, default]. */
  readonly flags: readonly (readonly [string, string, string?])[];
  readonly load: () => Promise<CommandFunction>;
}

const VIDEO_FLAGS: Description["flags"] = [
  ["--negative <TEXT>", "what the clip must not show"],
  ["--seed <N>", "0 to 2^53-1; the same seed gives the same clip (default: chosen and printed)"],
  ["--size <WxH>", "pixels, multiples of 8 (default: 1280x720)"],
  ["--seconds <S>", "length of the clip (default: 2)"],
  ["--fps <N>", "frames per second (default: 24)"],
  ["--quality <NAME>", "standard, or draft: few steps, where the bundle has it (default: standard)"],
  ["--steps <N>", "denoising steps (default: the bundle's for the quality)"],
  ["--guidance <G>", "how strictly to follow the prompt (default: the bundle's for the quality)"],
  ["--guidance-low <G>", "the same below the boundary, for models of two noise levels (default: the bundle's)"],
  ["--boundary <T>", "timestep where two noise levels part, 0 to 1000 (default: the bundle's)"],
  ["--shift <S>", "shift of the noise schedule (default: the bundle's)"],
  ["--grid <NAME>", "noise grid: diffusers, reference or flow-match-euler (default: the bundle's)"],
  ["--frames <N>", "in place of --seconds: frames the model makes, at its own rate"],
  ["--exact", "refuse --frames that would be rounded down"],
  ["--sampler <NAME>", "unipc, dpmpp or euler (default: the bundle's)"],
  ["--no-color-correction", "leave tint, contrast and flicker as the decoder gives them"],
];
/** For holding a clip against another implementation's. */
const REFERENCE_FLAGS: Description["flags"] = [
  ["--initial-noise <FILE>", "safetensors file with the one tensor to begin with, in place of the seed's noise"],
  ["--save-latents <FILE>", "keep every step's velocity and latents in a safetensors file"],
  ["--save-frames <FILE>", "keep the frames as decoded, before finishing, in a safetensors file"],
];
const SERVER_FLAG = ["--server <HOST:PORT>", "gRPC address of the server", SERVER_DEFAULT] as const;
const STORE_DATA_FLAG = ["--data <DIR>", "folder of jobs and clips (default: the user's data folder)"] as const;
const MODEL_FLAG = ["--model <BUNDLE>", "folder of the bundle to serve (default: the starter model)"] as const;
const SHARDS_FLAG = ["--shards <N>", "expert-shard processes (default: 2)"] as const;
const OUTPUT_FLAG = ["-o, --output <FILE>", "where the clip goes (default: ./moevie-WORDS-SEED.mp4)"] as const;

const COMMANDS: readonly Description[] = [
  {
    usage: "generate <PROMPT>",
    summary: "make a clip from a prompt on this machine, start to end",
    example: 'moevie generate "a golden dog runs along the beach at sunset" --seed 7 -o dog.mp4',
    flags: [OUTPUT_FLAG, ...VIDEO_FLAGS, ...REFERENCE_FLAGS, MODEL_FLAG, SHARDS_FLAG],
    load: async () => (await import("./commands/generate.ts")).generate,
  },
  {
    usage: "serve",
    summary: "keep a cluster up on this machine until Ctrl-C",
    example: "moevie serve --shards 4 --grpc-port 7900",
    flags: [
      SHARDS_FLAG,
      ["--slots <R>", "places for experts in a layer, over all shards; experts then move to where they are used"],
      ["--host <HOST>", "address to listen on", "127.0.0.1"],
      ["--grpc-port <N>", "port of the gRPC API; 0: any free one (default: 7900)"],
      ["--http-port <N>", "port of health, metrics and files; 0: any free one (default: 7901)"],
      ["--data <DIR>", "folder of jobs and clips (default: the user's data folder)"],
      [
        "--nats <URL>",
        "keep jobs and clips in this NATS server in place of a folder, shared with other clusters on it",
      ],
      MODEL_FLAG,
      ["--insecure", "allow an address that other machines can reach, without keys"],
    ],
    load: async () => (await import("./commands/serve.ts")).serve,
  },
  {
    usage: "submit <PROMPT>",
    summary: "hand a prompt to a running server and print the video's name",
    example: 'moevie submit "a red boat on a lake" --server 127.0.0.1:7900',
    flags: [
      ...VIDEO_FLAGS,
      ["--model <NAME>", "name of the bundle (default: the one served)"],
      ["--request-id <UUID>", "makes a repeated submit answer the first video"],
      ["--priority <NAME>", "high, normal or low, among the tenant's own videos (default: normal)"],
      ["--deadline <S>", "seconds from now after which it fails (default: none)"],
      ["--tenant <NAME>", "whose video it is, on a server that nobody stands before (default: default)"],
      SERVER_FLAG,
    ],
    load: async () => (await import("./commands/submit.ts")).submit,
  },
  {
    usage: "watch <VIDEO>",
    summary: "follow a video until it is finished",
    example: "moevie watch videos/6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f",
    flags: [SERVER_FLAG],
    load: async () => (await import("./commands/watch.ts")).watch,
  },
  {
    usage: "get <VIDEO>",
    summary: "show one video",
    example: "moevie get videos/6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f --json",
    flags: [SERVER_FLAG],
    load: async () => (await import("./commands/get.ts")).get,
  },
  {
    usage: "list",
    summary: "show videos, newest first",
    example: "moevie list --page-size 50",
    flags: [
      ["--page-size <N>", "videos in one page, 1 to 100 (default: 20)"],
      ["--page-token <TOKEN>", "where the page before ended"],
      SERVER_FLAG,
    ],
    load: async () => (await import("./commands/list.ts")).list,
  },
  {
    usage: "cancel <VIDEO>",
    summary: "stop a video that is queued or running",
    example: "moevie cancel videos/6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f",
    flags: [SERVER_FLAG],
    load: async () => (await import("./commands/cancel.ts")).cancel,
  },
  {
    usage: "delete <VIDEO>",
    summary: "remove a video, its record and its file",
    example: "moevie delete videos/6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f",
    flags: [SERVER_FLAG],
    load: async () => (await import("./commands/delete.ts")).deleteVideo,
  },
  {
    usage: "download <VIDEO>",
    summary: "fetch a finished clip",
    example: "moevie download videos/6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f -o boat.mp4",
    flags: [OUTPUT_FLAG, SERVER_FLAG],
    load: async () => (await import("./commands/download.ts")).download,
  },
  {
    usage: "inspect <BUNDLE>",
    summary: "show what a bundle holds and what it needs",
    example: "moevie inspect ./my-bundle --verify",
    flags: [["--verify", "read every file and compare its sha256"]],
    load: async () => (await import("./commands/inspect.ts")).inspect,
  },
  {
    usage: "doctor",
    summary: "say what this machine can run and what is wrong",
    example: "moevie doctor",
    flags: [],
    load: async () => (await import("./commands/doctor.ts")).doctor,
  },
  {
    usage: "bench [NAME]",
    summary: "run one measurement, or all",
    example: "moevie bench clip",
    flags: [],
    load: async () => (await import("./commands/bench.ts")).bench,
  },
  {
    usage: "soak",
    summary: "kill and stop a cluster's processes at random while it makes clips, and compare every clip",
    example: "moevie soak --kills 200 --store nats",
    flags: [
      ["--kills <N>", "faults in all (default: 200)"],
      ["--store <NAME>", "where jobs are: sqlite or nats (default: sqlite)"],
      ["--seed <S>", "which faults, in which order (default: 1)"],
    ],
    load: async () => (await import("./commands/soak.ts")).soak,
  },
  {
    usage: "sim",
    summary:
      "play schedules of a simulated cluster: the real job stores and scheduler, a network, a disk and clocks that misbehave",
    example: "moevie sim --store nats --seed 4711 --schedules 1",
    flags: [
      ["--store <NAME>", "where jobs are: sqlite or nats (default: one after the other)"],
      ["--schedules <N>", "how many, one seed after another; 1 shows all that happens (default: 2000)"],
      ["--seed <S>", "the first one's (default: 1)"],
      ["--fault <NAME>", "a fault to plant, which must be found; a wrong name shows all"],
    ],
    load: async () => (await import("./commands/sim.ts")).sim,
  },
  {
    usage: "import <FOLDER>",
    summary: "make a bundle from a folder of weights; the weights stay where they are",
    example: "moevie import packages/starter-model/weights --out ./my-bundle",
    flags: [
      ["--out <DIR>", "folder of the new bundle; must not exist"],
      ["--name <NAME>", "name of the model (default: the folder's)"],
      ["--precision <TYPE>", "what the denoiser computes in: f32, f16 or bf16 (default: f32)"],
      ["--negative-prompt <TEXT>", "what is kept out of clips whose request names nothing (default: nothing)"],
      ["--verify", "read every weight file in full and keep its sha256"],
    ],
    load: async () => (await import("./commands/import.ts")).importModel,
  },
  {
    group: "experts",
    usage: "show",
    isDefault: true,
    summary: "draw how much each expert is used, where it lies, and what a plan would change",
    example: "moevie experts show --http 127.0.0.1:7901",
    flags: [["--http <HOST:PORT>", "HTTP address of a gateway, or of a router", "127.0.0.1:7901"]],
    load: async () => (await import("./commands/experts-show.ts")).showExperts,
  },
  {
    group: "experts",
    usage: "plan",
    summary: "plan which shard holds which experts, by how much each is used",
    example: "moevie experts plan --loads loads.json --slots 72 --shards 8 --keep placement.json --json",
    flags: [
      ["--loads <FILE>", "JSON file: how much each expert is used, [[expert 0, expert 1, …], … a layer]"],
      ["--slots <R>", "places for experts in a layer, over all shards; a multiple of the shards"],
      ["--shards <P>", "expert-shard processes"],
      ["--groups <G>", "groups of experts that follow each other and stay together on a node", "1"],
      ["--nodes <N>", "machines, each with as many shards", "1"],
      ["--keep <PLAN>", "JSON file of the placement so far, or of an earlier plan: as little as can be moves"],
    ],
    load: async () => (await import("./commands/experts-plan.ts")).planExperts,
  },
  {
    group: "store",
    usage: "check",
    isDefault: true,
    summary: "read the jobs' database and its copies in full and say what is damaged; services must be stopped",
    example: "moevie store check --data /var/lib/moevie",
    flags: [STORE_DATA_FLAG],
    load: async () => (await import("./commands/store.ts")).checkJobStore,
  },
  {
    group: "store",
    usage: "recover",
    summary: "put the newest sound copy in the place of a damaged database, and say which jobs that costs",
    example: "moevie store recover --data /var/lib/moevie --yes",
    flags: [STORE_DATA_FLAG, ["--yes", "do it; without this, only say what would be done"]],
    load: async () => (await import("./commands/store.ts")).recoverJobStore,
  },
  {
    group: "jobs",
    usage: "dead",
    summary: "show videos that failed for no fault of their caller, with the cause",
    example: "moevie jobs dead",
    flags: [
      ["--page-size <N>", "videos in one page, 1 to 100 (default: 20)"],
      ["--page-token <TOKEN>", "the next page, as the last one printed it"],
      SERVER_FLAG,
    ],
    load: async () => (await import("./commands/jobs.ts")).deadJobs,
  },
  {
    group: "jobs",
    usage: "retry <VIDEO>",
    summary: "queue such a video again, its attempts and its deadline counted anew",
    example: "moevie jobs retry videos/6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f",
    flags: [SERVER_FLAG],
    load: async () => (await import("./commands/jobs.ts")).retryJob,
  },
  {
    usage: "version",
    summary: "show the versions of moevie and of Node",
    example: "moevie version",
    flags: [],
    load: async () => (await import("./commands/version.ts")).version,
  },
];

/** Builds the program; `run` is called for the command that was chosen. */
function buildProgram(run: CommandRunner): Command {
  const program = new Command("moevie")
    .description("Makes video clips from prompts, on one machine or a cluster.")
    .usage("COMMAND [ARGUMENTS]")
    .helpCommand(false)
    .addHelpText(
      "after",
      '\nExample:\n  moevie generate "a golden dog runs along the beach at sunset"\n\nmoevie COMMAND --help tells more. Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.',
    );
  for (const { group, usage, isDefault = false, summary, example, flags, load } of COMMANDS) {
    const command = (group === undefined ? program : groupOf(program, group))
      .command(usage, { isDefault })
      .summary(summary)
      .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`);
    for (const [flag, description, fallback] of flags)
      command.addOption(
        fallback === undefined ? new Option(flag, description) : new Option(flag, description).default(fallback),
      );
    command.option("--json", "print one JSON object");
    command.addHelpText("after", `\nExample:\n  ${example}`);
    command.action(async (...received: unknown[]) => {
      // Commander hands over the arguments, then the flags, then the command.
      const args = received.slice(0, -2).filter((value): value is string => typeof value === "string");
      await run(load, args, command.opts<RawFlags>());
    });
  }
  return program;
}

function groupOf(program: Command, name: keyof typeof GROUPS): Command {
  const known = program.commands.find((command) => command.name() === name);
  if (known !== undefined) return known;
  const summary = GROUPS[name];
  return program
    .command(name)
    .summary(summary)
    .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`)
    .helpCommand(false);
}

/** What parsing came to: an exit code with text to show, or nothing when a command ran. */
export interface ParseOutcome {
  readonly exitCode: ExitCode;
  readonly help?: string;
  readonly problem?: string;
}

/** The command of `program` that `argv` begins with, as far as it is known, as it is written. */
function commandIn(program: Command, argv: readonly string[]): { readonly command: Command; readonly path: string } {
  const next = program.commands.find((command) => command.name() === argv[0]);
  if (next === undefined) return { command: program, path: program.name() };
  const { command, path } = commandIn(next, argv.slice(1));
  return { command, path: `${program.name()} ${path}` };
}

function wrongUse(error: CommanderError, program: Command, argv: readonly string[]): string {
  const text = error.message.replace(/^error: /, "");
  const { command, path } = commandIn(program, argv);
  const named = command.commands.map((each) => each.name());
  if (error.code === "commander.unknownCommand") return `${text}; allowed: ${named.join(", ")}`;
  // A group's own command has taken what is no command of the group for an argument.
  if (error.code === "commander.excessArguments" && named.length > 0)
    return `unknown command '${argv[1] ?? ""}'; allowed: ${named.join(", ")}`;
  const hint = error.code === "commander.excessArguments" ? "; a prompt of several words needs quotes" : "";
  return `${text.replaceAll("\n", " ")}${hint}; see ${path} --help`;
}

/** Parses and runs. Errors of commands pass through; wrong use of the command line itself is answered here. */
export async function runProgram(argv: readonly string[], run: CommandRunner): Promise<ParseOutcome> {
  const program = buildProgram(run);
  let help = "";
  for (const command of [program, ...program.commands.flatMap((each) => [each, ...each.commands])]) {
    command.exitOverride();
    command.configureOutput({
      writeOut: (text) => (help += text),
      writeErr: (text) => (help += text),
      outputError: () => undefined,
    });
  }
  try {
    await program.parseAsync([...argv], { from: "user" });
    return { exitCode: EXIT.ok };
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === "commander.help") return { exitCode: EXIT.usage, help };
    if (error.exitCode === 0) return { exitCode: EXIT.ok, help };
    return { exitCode: EXIT.usage, problem: wrongUse(error, program, argv) };
  }
}
