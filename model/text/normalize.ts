// Normalizers of tokenizer.json, as Python's tokenizers apply them.
import { asJsonObject, booleanField, byType, type JsonObject, textField } from "../host/json.ts";
import { readSequence } from "./sequence.ts";
import { compilePattern } from "./token_pattern.ts";

/** Changes a text before it is split. @throws {SyntaxError} when it grows beyond all use */
export type Normalize = (text: string) => string;

/** Unicode's compatibility forms make up to 18 characters of one; what makes more of a text is out to fill the memory. */
const MAX_GROWTH = 32;
const MAX_ADDED = 4096;

/** Reads a normalizer; null is none. @throws {SyntaxError} for one that isn't known */
export function readNormalizer(name: string, value: unknown): Normalize {
  const steps = value === null || value === undefined ? [] : readSteps(asJsonObject(name, value));
  return (text) => {
    const limit = MAX_GROWTH * text.length + MAX_ADDED;
    const check = (length: number) => {
      if (length > limit) {
        throw new SyntaxError(`${name} makes more than ${limit} characters of ${text.length}, must make fewer`);
      }
    };
    return steps.reduce((text, step) => step(text, check), text);
  };
}

/** One step; `check` takes the length that the text is about to have. */
type Step = (text: string, check: (length: number) => void) => string;

function readSteps(json: JsonObject): Step[] {
  return byType<Step[]>(json, {
    Sequence: (json) => readSequence(json, "normalizers", readSteps).flat(),
    NFC: () => [unicodeForm("NFC")],
    NFD: () => [unicodeForm("NFD")],
    NFKC: () => [unicodeForm("NFKC")],
    NFKD: () => [unicodeForm("NFKD")],
    Lowercase: () => [(text) => text.toLowerCase()],
    Prepend: (json) => {
      const prefix = textField(json, "prepend");
      return [(text, check) => {
        check(text.length + prefix.length);
        return text === "" ? "" : prefix + text;
      }];
    },
    Replace: (json) => {
      const content = textField(json, "content");
      return [replacer(compilePattern(json), content)];
    },
    Strip: (json) => {
      const sides = [
        ...(booleanField(json, "strip_left", false) ? ["^\\p{White_Space}+"] : []),
        ...(booleanField(json, "strip_right", false) ? ["\\p{White_Space}+$"] : []),
      ];
      return sides.map((side) => replacer(new RegExp(side, "gu"), ""));
    },
  });
}

function unicodeForm(form: string): Step {
  return (text, check) => {
    const formed = text.normalize(form);
    check(formed.length);
    return formed;
  };
}

function replacer(pattern: RegExp, content: string): Step {
  return (text, check) => {
    let length = text.length;
    // A function's result is taken to the letter, while a text may refer to what was found ($&).
    return text.replace(pattern, (found) => {
      check(length += content.length - found.length);
      return content;
    });
  };
}
