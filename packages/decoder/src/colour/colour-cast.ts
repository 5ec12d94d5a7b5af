// White balance and contrast of a clip, held against what its latent means: a decoder that tints or flattens is undone, a sunset is
// not. One straight line a colour for the whole clip, so the correction itself never moves. Pure.

/** meant = gain * decoded + offset, in levels of 0 to 255. */
interface Line {
  readonly gain: number;
  readonly offset: number;
}
export type ColourLines = readonly [red: Line, green: Line, blue: Line];

export interface CastFit {
  readonly lines: ColourLines;
  /** By how much the lines move the darkest or the brightest of what was seen, whichever is more, in levels; 0 where they are left out. */
  readonly levels: number;
}

const AS_IT_IS: Line = { gain: 1, offset: 0 };
/** A shift below this is not seen, and is within what latents say wrongly. */
const CAST_LEVELS_MIN = 4;
/** Beyond this a line says more about the latent than about the decoder. */
const GAIN_MAX = 2;
/** Clipped cells lie on no line. */
const LEVEL_RANGE = [4, 251] as const;
/** Too little to fit a line to. */
const CELLS_MIN = 12;
/** Cells that spread less than this many levels say nothing about contrast. */
const SPREAD_MIN = 6;
/** Cells further from the line than this many of its typical distances are left out of the second fit. */
const OUTLIER_DISTANCES = 2.5;
/** A map from latent to colour is trusted down to this share of its typical miss of one cell. */
const TRUST = 0.5;

/** `decoded` and `meant`: [3, cells] each, of as many latent frames. */
export function fitCast(decoded: readonly Float32Array[], meant: readonly Float32Array[]): CastFit {
  const fits = [0, 1, 2].map((colour) => fitLine(planes(decoded, colour), planes(meant, colour)));
  const levels = Math.max(...fits.map((fit) => fit.levels));
  const trusted = Math.max(CAST_LEVELS_MIN, TRUST * Math.max(...fits.map((fit) => fit.missLevels)));
  if (levels < trusted) return { lines: [AS_IT_IS, AS_IT_IS, AS_IT_IS], levels: 0 };
  return { lines: [fits[0]!.line, fits[1]!.line, fits[2]!.line], levels };
}

function planes(frames: readonly Float32Array[], colour: number): number[] {
  return frames.flatMap((means) => [...means.subarray((colour * means.length) / 3, ((colour + 1) * means.length) / 3)]);
}

interface LineFit {
  readonly line: Line;
  readonly levels: number;
  /** How far a cell typically lies from the line. */
  readonly missLevels: number;
}

function fitLine(decoded: readonly number[], meant: readonly number[]): LineFit {
  const [least, most] = LEVEL_RANGE;
  const inside = (level: number): boolean => level >= least && level <= most;
  let cells = decoded.map((x, at) => ({ x, y: meant[at] ?? Number.NaN })).filter(({ x, y }) => inside(x) && inside(y));
  if (cells.length < CELLS_MIN) return { line: AS_IT_IS, levels: 0, missLevels: 0 };
  let line = leastSquares(cells);
  let missLevels = missOf(cells, line);
  cells = cells.filter((cell) => distance(cell, line) <= OUTLIER_DISTANCES * missLevels + 1);
  line = leastSquares(cells);
  missLevels = missOf(cells, line);
  const shift = (x: number): number => Math.abs(line.gain * x + line.offset - x);
  const levels = cells.map(({ x }) => x).toSorted((a, b) => a - b);
  const at = (share: number): number => levels[Math.round(share * (levels.length - 1))] ?? 0;
  return { line, levels: Math.max(shift(at(0.05)), shift(at(0.95))), missLevels };
}

interface Cell {
  readonly x: number;
  readonly y: number;
}

const distance = ({ x, y }: Cell, { gain, offset }: Line): number => Math.abs(gain * x + offset - y);

function missOf(cells: readonly Cell[], line: Line): number {
  return Math.sqrt(cells.reduce((sum, cell) => sum + distance(cell, line) ** 2, 0) / cells.length);
}

/** The line through the middle of the cells; with too little spread to see a slope, a shift alone. */
function leastSquares(cells: readonly Cell[]): Line {
  const mean = (of: (cell: Cell) => number): number => cells.reduce((sum, cell) => sum + of(cell), 0) / cells.length;
  const [x, y] = [mean((cell) => cell.x), mean((cell) => cell.y)];
  const spread = mean((cell) => (cell.x - x) ** 2);
  const slope = mean((cell) => (cell.x - x) * (cell.y - y)) / spread;
  const gain = spread < SPREAD_MIN ** 2 ? 1 : Math.min(Math.max(slope, 1 / GAIN_MAX), GAIN_MAX);
  return { gain, offset: y - gain * x };
}
