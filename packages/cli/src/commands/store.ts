// `moevie store check` and `moevie store recover`: the job store's own program looks over the folder; this says it to people.
import { statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { CommandError, UsageError } from "../failure.ts";
import { lastWords, runNode } from "../run-child.ts";
import { lockData } from "../supervisor/data-lock.ts";

interface StoreCheck {
  readonly database: string;
  readonly isThere: boolean;
  readonly damage: readonly string[];
  readonly jobs: number;
  readonly backups: readonly {
    readonly path: string;
    readonly takenAtMs: number;
    readonly isSound: boolean;
    readonly jobs: number;
  }[];
}

interface Recovery {
  readonly restored: string;
  readonly takenAtMs: number;
  readonly lostMs: number;
  readonly setAside: string;
  readonly lost: readonly string[];
  readonly runAgain: readonly string[];
  readonly withoutClip: readonly string[];
}

interface Answer {
  readonly check?: StoreCheck;
  readonly recovery?: Recovery;
  readonly error?: { readonly reason: string; readonly message: string };
}

export async function checkJobStore(
  context: CommandContext,
  _args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const check = await checked(context, dataFolder(context, flags));
  return { json: { ...check }, failed: !check.isThere || check.damage.length > 0, lines: checkLines(check) };
}

export async function recoverJobStore(
  context: CommandContext,
  _args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const data = dataFolder(context, flags);
  const check = await checked(context, data);
  if (check.isThere && check.damage.length === 0)
    return { json: { ...check }, lines: [`${check.database} is sound: nothing was changed`] };
  if (flags["yes"] !== true)
    return {
      json: { ...check },
      failed: true,
      lines: [...checkLines(check), "nothing was changed: --yes puts the newest sound copy in its place"],
    };
  const unlock = lockData(data);
  const { recovery } = await ask(context, "recover", data).finally(unlock);
  if (recovery === undefined) throw new CommandError("the job store's program gave no answer");
  return { json: { ...recovery }, lines: recoveryLines(recovery) };
}

function dataFolder(context: CommandContext, flags: RawFlags): string {
  const given = textFlag(flags, "data") ?? context.config.dataDir;
  const path = resolve(given ?? "");
  if (given === undefined || given === "" || statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new UsageError([{ flag: "--data", value: given ?? "", allowed: "the folder that serve keeps jobs in" }]);
  return path;
}

async function checked(context: CommandContext, data: string): Promise<StoreCheck> {
  const { check } = await ask(context, "check", data);
  if (check === undefined) throw new CommandError("the job store's program gave no answer");
  return check;
}

async function ask(context: CommandContext, verb: "check" | "recover", data: string): Promise<Answer> {
  const program = join(context.config.root, "packages", "job-store", "src", "recover-main.ts");
  const { interruption } = context;
  const { stdout, stderr } = await runNode(context, [program, verb, data], { capture: true, interruption });
  if (stdout === "") throw new CommandError(`the job store's program failed: ${lastWords(stderr)}`);
  const answer = JSON.parse(stdout) as Answer;
  if (answer.error !== undefined) throw new CommandError(answer.error.message, answer.error.reason);
  return answer;
}

function shownTime(takenAtMs: number): string {
  return new Date(takenAtMs).toISOString();
}

function checkLines({ database, isThere, damage, jobs, backups }: StoreCheck): string[] {
  const state = !isThere
    ? `is not there: ${dirname(database)} holds no jobs`
    : damage.length > 0
      ? "is damaged"
      : `is sound, ${jobs} jobs`;
  return [
    `${database} ${state}`,
    ...damage.map((line) => `  ${line}`),
    ...backups.map(
      (copy) => `copy of ${shownTime(copy.takenAtMs)} ${copy.isSound ? `is sound, ${copy.jobs} jobs` : "is damaged"}`,
    ),
    ...(backups.length === 0 ? ["there are no copies"] : []),
  ];
}

function recoveryLines({ takenAtMs, lostMs, setAside, lost, runAgain, withoutClip }: Recovery): string[] {
  return [
    `restored the copy of ${shownTime(takenAtMs)}; the ${Math.round(lostMs / 1000)} s after it are lost`,
    `what was there, and the files of lost jobs, lie in ${setAside}`,
    ...lost.map((id) => `lost: videos/${id}`),
    ...runAgain.map(
      (id) => `runs again from its last checkpoint that the copy knows, or from the beginning: videos/${id}`,
    ),
    ...withoutClip.map((id) => `finished, but its clip is gone: videos/${id}`),
  ];
}
