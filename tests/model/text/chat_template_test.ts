import { readPromptFormat } from "../../../model/text/chat.ts";
import { openModel } from "../../../model/load.ts";
import { readTokenizer } from "../../../model/text/tokenizer.ts";
import { assertEquals } from "../../assert.ts";

Deno.test("readPromptFormat: a template in chat_template.jinja counts where tokenizer_config.json has none", async () => {
  using checkpoint = await openModel("tiny");
  const tokenizer = await readTokenizer(checkpoint);
  const template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
  const readText = (file: string) =>
    file === "chat_template.jinja" ? Promise.resolve(template) : checkpoint.readText(file);
  const { encodeChat, hasTemplate } = await readPromptFormat({ ...checkpoint, readText }, tokenizer);
  assertEquals(hasTemplate, true);
  assertEquals(
    encodeChat([{ role: "user", content: "Call me Ishmael." }]),
    tokenizer.encode("user: Call me Ishmael.\n"),
  );
  assertEquals((await readPromptFormat(checkpoint, tokenizer)).hasTemplate, false);
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
