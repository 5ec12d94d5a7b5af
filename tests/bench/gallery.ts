// Makes the contact sheets of docs/gallery anew: two dozen prompts, one seed each, through a real cluster at 1280x720. The sheets are
// those that lie beside every clip. Nothing is chosen: the first clip of every prompt is the one shown.
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { VideoClient } from "@moevie/client";
import { importStarter } from "@moevie/importer";
import { startCluster } from "./support/cluster.ts";
import { ProcessGroup, ROOT } from "./support/processes.ts";

const OUT = join(ROOT, "docs/gallery");
const SEED = 7;
const WAIT_MS = 60_000;
const PROMPTS = [
  "a golden dog runs along the beach at sunset",
  "cyberpunk city at night",
  "a red car drives through the city at night in the rain, from right to left",
  "a blue boat on the sea at sunset, from left to right",
  "a purple star bounces over a meadow by day",
  "a white bird flies over the sea by day, from left to right",
  "a green ball bounces on the street in the snow",
  "a pink cyclist on the street by day, from right to left",
  "a black dog stands on a meadow at night in the snow",
  "a golden star over the city at night",
  "a red boat on the sea in the rain, from right to left",
  "a blue bird stays in the meadow at sunset",
  "一只金毛犬在夕阳下的海滩奔跑，慢动作，电影质感",
  "一个人骑着红色自行车穿过雨中的街道",
  "雪中的城市里，一辆蓝色的汽车从左到右行驶",
  "夜晚的海面上，一艘白色的小船从右到左",
  "草地上一个紫色的球在弹跳，白天，晴朗",
  "傍晚的街道上，一只黑色的狗从左到右跑过",
  "一只粉色的鸟从右到左飞过海滩，白天",
  "金色的星星停在夜空下的城市",
  "下雪的草地上，一个骑绿色自行车的人，从左到右",
  "雨中的海滩，一个红色的球静止不动",
  "日落时分，一辆绿色的汽车停在街道上",
  "白天的海面，一只蓝色的鸟在弹跳",
];

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-gallery-"));
const group = new ProcessGroup();
try {
  const [bundle, data] = [join(scratch, "bundle"), join(scratch, "data")];
  await importStarter(join(ROOT, "packages/starter-model/weights"), bundle);
  await startCluster(group, { bundle, data });
  const client = new VideoClient(group.address("gateway"));
  mkdirSync(OUT, { recursive: true });
  const operations = await Promise.all(PROMPTS.map((prompt) => client.createVideo({ prompt, seed: SEED })));
  const lines: string[] = [];
  for (const [at, operation] of operations.entries()) {
    for (let now = operation; !now.done;) now = await client.waitOperation(operation.name, WAIT_MS);
    const folder = join(data, "artefacts", operation.name.replace(/^operations\//, ""));
    const sheet = readdirSync(folder).find((name) => name.endsWith(".sprites.jpg"));
    if (sheet === undefined) throw new Error(`no sheet beside the clip of ${PROMPTS[at]}`);
    const name = `${String(at + 1).padStart(2, "0")}.jpg`;
    copyFileSync(join(folder, sheet), join(OUT, name));
    lines.push(`**${PROMPTS[at]}**\n\n![sixteen frames of the clip](${name})\n`);
  }
  client.close();
  const intro = `# Gallery\n\nSixteen frames of each of ${PROMPTS.length} clips of the bundled model, 2 s at 1280x720, seed ${SEED}, standard quality: the first
clip of every prompt, none left out. Made by \`./moevie bench gallery\`. What is weak in them is in
[the model card](../../packages/starter-model/MODEL_CARD.md).\n`;
  writeFileSync(join(OUT, "README.md"), `${intro}\n${lines.join("\n")}`);
  console.log(`${PROMPTS.length} sheets in ${OUT}`);
} finally {
  await group.close();
  rmSync(scratch, { recursive: true, force: true });
}
