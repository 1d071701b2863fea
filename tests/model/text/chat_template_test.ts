import type { GgufFile } from "../../../model/files/gguf_file.ts";
import { describeTokenizerSettings } from "../../../model/files/gguf_tokenizer.ts";
import { openModel } from "../../../model/load.ts";
import { type PromptFormat, readPromptFormat } from "../../../model/text/chat.ts";
import { readTokenizer, type Tokenizer } from "../../../model/text/tokenizer.ts";
import { assert, assertEquals } from "../../assert.ts";

const TOKENS = ["<s>", "</s>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>"];

/** Tokens are those above, found as a whole, and UTF-16 units. */
const TOKENIZER: Tokenizer = {
  encode: (text) =>
    TOKENS.includes(text) ? Uint32Array.of(TOKENS.indexOf(text)) : Uint32Array.from(text, (unit) => unit.charCodeAt(0)),
  decode: (tokens) => String.fromCharCode(...Array.from(tokens)),
  vocabulary: 1 << 16,
  prefix: Uint32Array.of(0),
};

/** Prompt format of a model with these files. */
function read(files: Readonly<Record<string, unknown>>, tokenizer = TOKENIZER): Promise<PromptFormat> {
  const readText = (file: string) => {
    const content = files[file];
    return Promise.resolve(content === undefined || typeof content === "string" ? content : JSON.stringify(content));
  };
  return readPromptFormat({ name: "m", readText }, tokenizer);
}

const MESSAGES = [{ role: "user", content: "Call me Ishmael." }];
const TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";

Deno.test("readPromptFormat: chat_template.jinja counts before the template in tokenizer_config.json", async () => {
  const inline = { "tokenizer_config.json": { chat_template: "OLD {{ messages[0].content }}" } };
  assertEquals((await read(inline)).renderChat(MESSAGES), "OLD Call me Ishmael.");
  const both = await read({ ...inline, "chat_template.jinja": TEMPLATE });
  assertEquals(both.renderChat(MESSAGES), "user: Call me Ishmael.\n");
  assertEquals(both.encodeChat(MESSAGES), TOKENIZER.encode("user: Call me Ishmael.\n"));
  assertEquals((await read({ "chat_template.jinja": TEMPLATE })).hasTemplate, true);
  assertEquals((await read({})).hasTemplate, false);
});

/** A template, settings, and the text that transformers 5.24's apply_chat_template gives for the messages. */
const CONTEXT: readonly (readonly [template: string, settings: object, text: string])[] = [
  ["{% if tools is not none %}TOOLS{% endif %}X", {}, "X"],
  ["{{ tools | default('none given') }} {{ documents }}", {}, "None None"],
  ["{{ unk_token }}|{{ pad_token }}|", { unk_token: "<unk>", pad_token: { content: "<pad>" } }, "<unk>|<pad>|"],
  ["{{ bos_token is defined }}{{ bos_token }}", { bos_token: null, add_bos_token: true }, "False"],
  ["{{ image_token }}{{ eot_token }}", { eot_token: "<t>", extra_special_tokens: { image_token: "<i>" } }, "<i><t>"],
  ["a\r\n{% if true %}\r\nb{% endif %}\r\n", {}, "a\nb"],
  ["{{ add_generation_prompt }} {{ messages | length }}", {}, "True 1"],
];

Deno.test("readPromptFormat: templates are given what transformers gives them", async () => {
  for (const [template, settings, text] of CONTEXT) {
    const prompts = await read({ "tokenizer_config.json": settings, "chat_template.jinja": template });
    assertEquals(prompts.renderChat(MESSAGES), text, template);
  }
  const older = await read({
    "tokenizer_config.json": { chat_template: "{{ bos_token }}{{ pad_token }}", bos_token: "A" },
    "special_tokens_map.json": { bos_token: "B", pad_token: { content: "<p>" } },
  });
  assertEquals(older.renderChat(MESSAGES), "B<p>");
  const dated = await read({ "chat_template.jinja": "{{ strftime_now('%A %j %y %a %-d') }}" });
  assert(/^[A-Z][a-z]+day \d{3} \d\d [A-Z][a-z]{2} \d{1,2}$/.test(dated.renderChat([])), dated.renderChat([]));
  const unstarted = await read({ "chat_template.jinja": "{{ add_generation_prompt }}" });
  assertEquals(unstarted.renderChat([], { addGenerationPrompt: false }), "False");
});

Deno.test("readPromptFormat: a plain text has in front what the tokenizer puts there", async () => {
  const prompts = await read({ "config.json": { bos_token_id: 7 }, "tokenizer_config.json": { add_bos_token: false } });
  assertEquals(Array.from(prompts.encodeText("ab")), [0, 97, 98]);
  // transformers 5.24 asks the post-processor alone: with none, a config.json with bos_token_id 0 gives [5] for "hi" by
  // each of LlamaTokenizer, LlamaTokenizerFast, GPT2Tokenizer, Qwen2Tokenizer and PreTrainedTokenizerFast.
  const silent = { ...TOKENIZER, prefix: new Uint32Array() };
  const plain = await read(
    { "config.json": { bos_token_id: 0 }, "generation_config.json": { bos_token_id: 0 } },
    silent,
  );
  assertEquals(Array.from(plain.encodeText("ab")), [97, 98]);
});

Deno.test("readPromptFormat: a text ends at all tokens that the files or the chat formats name", async () => {
  const stopsOf = async (files: Readonly<Record<string, unknown>>) =>
    Array.from((await read(files)).stopTokens).sort((a, b) => a - b);
  // The chat formats' own: <|im_end|>, <|eot_id|>, <|eom_id|>, <|endoftext|>.
  assertEquals(await stopsOf({}), [2, 3, 4, 5]);
  assertEquals(await stopsOf({ "config.json": { eos_token_id: null } }), [2, 3, 4, 5]);
  assertEquals(
    await stopsOf({ "config.json": { eos_token_id: 9 }, "generation_config.json": { eos_token_id: [8, 9, "x"] } }),
    [
      2,
      3,
      4,
      5,
      8,
      9,
    ],
  );
  assertEquals(await stopsOf({ "tokenizer_config.json": { eos_token: { content: "</s>" } } }), [1, 2, 3, 4, 5]);
});

Deno.test("describeTokenizerSettings: GGUF's ends of a text, a turn and a message are named", () => {
  const ids = { bos: 0, eos: 1, eot: 3, eom: 4 };
  const metadata = Object.fromEntries(Object.entries(ids).map(([key, id]) => [`tokenizer.ggml.${key}_token_id`, id]));
  const file = {
    metadata: { ...metadata, "tokenizer.ggml.tokens": TOKENS },
    source: { name: "f" },
  } as unknown as GgufFile;
  assertEquals(JSON.parse(describeTokenizerSettings(file)), {
    bos_token: "<s>",
    eos_token: "</s>",
    eot_token: "<|eot_id|>",
    eom_token: "<|eom_id|>",
    add_bos_token: false,
  });
});

Deno.test("renderChat: the model's answer is started, but where it isn't wanted", async () => {
  using checkpoint = await openModel("tiny");
  const template =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<me>{% endif %}";
  const readText = (file: string) =>
    file === "chat_template.jinja" ? Promise.resolve(template) : checkpoint.readText(file);
  const { renderChat } = await readPromptFormat({ ...checkpoint, readText }, await readTokenizer(checkpoint));
  const messages = [{ role: "user", content: "Call me Ishmael." }];
  assertEquals(renderChat(messages), "<user>Call me Ishmael.<me>");
  assertEquals(renderChat(messages, { addGenerationPrompt: false }), "<user>Call me Ishmael.");
});
