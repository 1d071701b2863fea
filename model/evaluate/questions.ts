// Multiple-choice questions of four data sets, turned into texts to score as lm-evaluation-harness 0.4 does without
// examples in front: the same prompts, delimiters and text preprocessing.
import { asJsonObject, type JsonObject, parseJsonObject, textField } from "../host/json.ts";
import { capitalize, lengthOf, strip } from "../host/python_text.ts";

/** A text whose continuation is scored. */
export interface Request {
  readonly context: string;
  /** What is scored, with the space in front. */
  readonly continuation: string;
}

export interface Question {
  /** One for each choice. */
  readonly requests: readonly Request[];
  /** Characters (code points) of each choice, by which acc_norm divides its log-likelihood. */
  readonly lengths: readonly number[];
  /** Index of the right choice. */
  readonly answer: number;
}

/** How the rows of a data set are read. */
interface QuestionLayout {
  /** Whether acc_norm is reported. */
  readonly normalized: boolean;
  /** Reads a row. @throws {SyntaxError} for a field that is missing or of another type */
  readonly read: (row: JsonObject) => Question;
}

/** Name of a task, as in the harness. */
export type ChoiceTaskName = "piqa" | "hellaswag" | "arc_easy" | "arc_challenge" | "winogrande";

const LAYOUTS: Readonly<Record<ChoiceTaskName, QuestionLayout>> = {
  piqa: { normalized: true, read: readPiqa },
  hellaswag: { normalized: true, read: readHellaswag },
  arc_easy: { normalized: true, read: readArc },
  arc_challenge: { normalized: true, read: readArc },
  winogrande: { normalized: false, read: readWinogrande },
};

export const CHOICE_TASKS: readonly ChoiceTaskName[] = Object.keys(LAYOUTS) as ChoiceTaskName[];

/** Whether a task's acc_norm is reported. */
export function isNormalized(task: ChoiceTaskName): boolean {
  return LAYOUTS[task].normalized;
}

/**
 * Reads a row of a task's file.
 *
 * @param name what error messages call the row
 * @param text the row, a JSON object
 * @throws {SyntaxError} naming row and field
 */
export function readQuestion(task: ChoiceTaskName, name: string, text: string): Question {
  return LAYOUTS[task].read(parseJsonObject(name, text));
}

/** `{goal, sol1, sol2, label: 0 | 1}` */
function readPiqa(row: JsonObject): Question {
  const choices = [textField(row, "sol1"), textField(row, "sol2")];
  return choose(row, `Question: ${textField(row, "goal")}\nAnswer:`, choices, indexField(row, "label", ["0", "1"]));
}

/** `{activity_label, ctx_a, ctx_b, endings: [4 texts], label: 0..3}` */
function readHellaswag(row: JsonObject): Question {
  const context = `${textField(row, "ctx_a")} ${capitalize(textField(row, "ctx_b"))}`;
  const endings = textsField(row, "endings").map(cleanHellaswag);
  const query = cleanHellaswag(`${textField(row, "activity_label")}: ${context}`);
  return choose(row, query, endings, indexField(row, "label", endings.map((_, i) => String(i))));
}

/** Takes out what WikiHow's markup left: titles become sentences, other brackets vanish. */
function cleanHellaswag(text: string): string {
  return strip(text).replaceAll(" [title]", ". ").replace(/\[[^\n]*?\]/g, "").replaceAll("  ", " ");
}

/** `{question, choices: {text: [], label: []}, answerKey}`, or as first published `{question: {stem, choices: [{text, label}]}, answerKey}` */
function readArc(row: JsonObject): Question {
  const { question, choices } = row.fields;
  let [stem, texts, labels] = [question, [] as string[], [] as string[]];
  if (typeof question === "string") {
    const lists = asJsonObject(`${row.name}: choices`, choices);
    [texts, labels] = [textsField(lists, "text"), textsField(lists, "label")];
  } else {
    const nested = asJsonObject(`${row.name}: question`, question);
    stem = textField(nested, "stem");
    const list = Array.isArray(nested.fields.choices) ? nested.fields.choices : [];
    const entries = list.map((entry, i) => asJsonObject(`${row.name}: choice ${i}`, entry));
    [texts, labels] = [entries.map((e) => textField(e, "text")), entries.map((e) => textField(e, "label"))];
  }
  if (texts.length !== labels.length) {
    throw new SyntaxError(`${row.name}: ${labels.length} labels for ${texts.length} choices, must be one each`);
  }
  return choose(row, `Question: ${stem}\nAnswer:`, texts, indexField(row, "answerKey", labels));
}

/** `{sentence with a _, option1, option2, answer: 1 | 2}`: the text after the gap is scored with each option in it. */
function readWinogrande(row: JsonObject): Question {
  const sentence = textField(row, "sentence");
  const gap = sentence.indexOf("_");
  if (gap < 0) throw new SyntaxError(`${row.name}: sentence is ${JSON.stringify(sentence)}, must have a _`);
  const contexts = [textField(row, "option1"), textField(row, "option2")].map((option) =>
    sentence.slice(0, gap) + option
  );
  const continuation = ` ${strip(sentence.slice(gap + 1))}`;
  return {
    requests: contexts.map((context) => ({ context, continuation })),
    lengths: contexts.map(lengthOf),
    answer: indexField(row, "answer", ["1", "2"]),
  };
}

function choose({ name }: JsonObject, context: string, choices: readonly string[], answer: number): Question {
  if (choices.length < 2) throw new SyntaxError(`${name}: ${choices.length} choices, must be at least 2`);
  return {
    requests: choices.map((choice) => ({ context, continuation: ` ${choice}` })),
    lengths: choices.map(lengthOf),
    answer,
  };
}

function textsField({ name, fields }: JsonObject, key: string): string[] {
  const value = fields[key];
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw new SyntaxError(`${name}: ${key} is ${JSON.stringify(value)}, must be a list of texts`);
  }
  return value;
}

/** Index of a field's value, a text or a number, among those that are known. */
function indexField({ name, fields }: JsonObject, key: string, known: readonly string[]): number {
  const value = fields[key];
  const index = typeof value === "string" || typeof value === "number" ? known.indexOf(String(value)) : -1;
  if (index < 0) {
    throw new SyntaxError(`${name}: ${key} is ${JSON.stringify(value)}, must be one of ${known.join(", ")}`);
  }
  return index;
}
