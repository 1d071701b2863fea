// Parts of tokenizer.json that are done one after the other.
import { asJsonObject, type JsonObject, listField } from "../host/json.ts";

/** Parts of a sequence; published tokenizers have at most eight. */
const MAX_PARTS = 32;

/** Reads the parts of a sequence from a field. @throws {SyntaxError} for too many, or one that is a sequence itself */
export function readSequence<T>(json: JsonObject, key: string, read: (part: JsonObject) => T): T[] {
  const list = listField(json, key);
  if (list.length > MAX_PARTS) {
    throw new SyntaxError(`${json.name}: ${key} has ${list.length} parts, must have at most ${MAX_PARTS}`);
  }
  return list.map((value) => {
    const part = asJsonObject(`${json.name}: ${key}`, value);
    if (part.fields.type === "Sequence") {
      throw new SyntaxError(`${part.name} has a Sequence, must have none within another`);
    }
    return read(part);
  });
}
