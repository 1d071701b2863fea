// Asks models five questions through their chat templates and prints the greedy answers beside each other, under those of
// the unquantized SmolLM2-135M-Instruct in transformers: whether a packed model still chats is for a person to judge.
//
//     deno run -A tests/real/chat_questions.ts MODEL [MODEL...]
import { loadEngine } from "../../mod.ts";
import { readJson } from "../fixture.ts";

/** What transformers answers (tests/fixtures/make_chat_answers.py). */
interface ChatAnswer {
  readonly question: string;
  /** Its text, and its tokens up to the end token. */
  readonly answer: string;
  readonly tokens: readonly number[];
  /** Tokens of the conversation. */
  readonly ids: readonly number[];
  /** What the best logit of each step has over the second. */
  readonly gaps: readonly number[];
}

/** Reads them. */
function readChatAnswers(): Promise<ChatAnswer[]> {
  return readJson<ChatAnswer[]>("chat_answers.json");
}

/** Greedy answers of a model, all questions at once; its texts end after `maxTokens`. */
async function askModel(name: string, questions: readonly string[], maxTokens: number) {
  using engine = await loadEngine(name);
  const answers = questions.map(() => ({ text: "", tokens: [] as number[] }));
  const prompts = questions.map((content) => [{ role: "user", content }]);
  for await (const { index, text, tokens } of engine.generateBatch(prompts, { maxTokens })) {
    answers[index].text += text;
    answers[index].tokens.push(...tokens);
  }
  return answers;
}

/** Tokens of a printed answer. */
const MOST_TOKENS = 64;

if (import.meta.main) {
  const known = await readChatAnswers();
  const questions = known.map(({ question }) => question);
  const answers = new Map<string, string[]>([[
    "SmolLM2-135M-Instruct in transformers",
    known.map(({ answer }) => answer),
  ]]);
  for (const model of Deno.args) {
    answers.set(model, (await askModel(model, questions, MOST_TOKENS)).map(({ text }) => text));
  }
  for (const [i, question] of questions.entries()) {
    console.log(`== ${question}`);
    for (const [model, texts] of answers) console.log(`-- ${model}\n${texts[i].trim()}`);
    console.log();
  }
}
