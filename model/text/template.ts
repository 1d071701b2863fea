/**
 * Chat templates.
 *
 * @module
 */
import { Template } from "@huggingface/jinja";
import { clipText } from "../host/quote_text.ts";

/** Renders a template. @throws {SyntaxError} where it fails, with its message */
export function renderTemplate(name: string, template: string, context: Readonly<Record<string, unknown>>): string {
  try {
    return new Template(template).render(context);
  } catch (cause) {
    throw new SyntaxError(`${name}: the chat template fails: ${clipText((cause as Error).message)}`, { cause });
  }
}
