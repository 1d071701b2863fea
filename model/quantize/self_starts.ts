// Where the texts start that a model writes itself.
import type { Random } from "../../quant/random.ts";
import type { Engine } from "../engine/engine.ts";
import { readMix } from "../text/mix.ts";
import type { WindowPlan } from "../text/windows.ts";

/** Writes a text after each prompt, up to where it ends or to `limit` tokens; the prompts aren't part of it. */
export type Write = (
  prompts: readonly Uint32Array<ArrayBuffer>[],
  limit: number,
) => Promise<readonly Uint32Array<ArrayBuffer>[]>;

/** What starts are made with: of an engine the tokenizer and the prompts. */
type Prompter = Pick<Engine, "tokenizer" | "prompts">;

export interface KindOfStarts {
  /** Windows to fill with texts of it. */
  readonly windows: number;
  /** Makes `count` prompts; none where the model asks nothing. */
  readonly makePrompts: (count: number) => Promise<readonly Uint32Array<ArrayBuffer>[]>;
}

/**
 * Kinds and their shares: with a chat template half of the windows hold questions that the model makes up where the
 * template has the user speak, put to it; the others begin by turns with the first words of a paragraph of the mix and
 * with any single token. Questions of a file would be the same few for all, and book text within a template doesn't help
 * (docs/accuracy_study.md).
 */
export async function kindsOfStarts(
  engine: Prompter,
  { length, count }: WindowPlan,
  random: Random,
  write: Write,
): Promise<KindOfStarts[]> {
  const { prefix } = engine.tokenizer;
  const userStart = startOfUser(engine, length);
  const conversations = userStart ? Math.floor(count / 2) : 0;
  const starts = [await paragraphStarts(engine, random), () => looseToken(engine, random)];
  const startAny = (_: unknown, i: number) => Uint32Array.from([...prefix, ...starts[i % starts.length]()]);
  return [
    {
      windows: count - conversations,
      makePrompts: (count) => Promise.resolve(Array.from({ length: count }, startAny)),
    },
    {
      windows: conversations,
      makePrompts: (count) => askQuestions(engine, Array(count).fill(userStart), length, write),
    },
  ];
}

/** Tokens of the mix that a text goes on from. */
const START_TOKENS = 8;

/** Characters that hold as many; shorter paragraphs start nothing. */
const START_CHARACTERS = 100;

async function paragraphStarts({ tokenizer }: Prompter, random: Random): Promise<() => Uint32Array> {
  const sources = (await readMix()).map(({ text }) =>
    text.split("\n\n").filter(({ length }) => length >= START_CHARACTERS)
  );
  return () => {
    const paragraphs = sources[random.integer(sources.length)];
    const start = paragraphs[random.integer(paragraphs.length)].slice(0, START_CHARACTERS);
    return tokenizer.encode(start).subarray(0, START_TOKENS);
  };
}

/** A token that stands for some text. */
function looseToken({ tokenizer }: Prompter, random: Random): Uint32Array {
  while (true) {
    const token = random.integer(tokenizer.vocabulary);
    if (tokenizer.decode([token]) !== "") return Uint32Array.of(token);
  }
}

/** What no template says by itself. */
const MARK = "WHAT-THE-USER-SAYS";

/** Tokens of a conversation up to where the user speaks; undefined without a template, or where windows are too short. */
function startOfUser({ prompts, tokenizer }: Prompter, windowTokens: number): Uint32Array<ArrayBuffer> | undefined {
  if (!prompts.hasTemplate) return undefined;
  const [before, after] = prompts.renderChat([{ role: "user", content: MARK }]).split(MARK);
  // A space before a word is part of the word's token.
  const start = tokenizer.encode(before.replace(/ +$/, ""));
  return after === undefined || start.length === 0 || start.length > windowTokens / 2 ? undefined : start;
}

/** Most tokens of a question. */
const QUESTION_TOKENS = 128;

/** Has the model write questions, and puts them to it; where it asks too little, some more than once. */
async function askQuestions(
  { prompts, tokenizer }: Prompter,
  starts: readonly Uint32Array<ArrayBuffer>[],
  windowTokens: number,
  write: Write,
): Promise<Uint32Array<ArrayBuffer>[]> {
  const questions = await write(starts, Math.min(QUESTION_TOKENS, Math.ceil(windowTokens / 4)));
  const asked = questions.map((tokens) => tokenizer.decode(tokens).trim())
    .filter((content) => content !== "")
    .map((content) => prompts.encodeChat([{ role: "user", content }]))
    .filter(({ length }) => length < windowTokens);
  return asked.length === 0 ? [] : starts.map((_, i) => asked[i % asked.length]);
}
