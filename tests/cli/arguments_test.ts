import fc from "fast-check";
import { parseArgs } from "node:util";
import { type Command, parseArguments } from "../../cli/command.ts";
import { assertEquals } from "../assert.ts";

const COMMAND: Command = {
  name: "example",
  summary: "",
  positionals: ["A"],
  options: {
    json: { help: "" },
    force: { help: "" },
    out: { value: "V", help: "" },
    "top-k": { value: "V", help: "" },
  },
  run: () => Promise.resolve(0),
};

const NODE_OPTIONS = {
  json: { type: "boolean" },
  force: { type: "boolean" },
  out: { type: "string" },
  "top-k": { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

/** What Node's strict parser, an independent one, makes of the same arguments; of its errors the first sentence. */
function parseAsNode(args: string[]) {
  try {
    const { values, positionals } = parseArgs({ args, options: NODE_OPTIONS, allowPositionals: true });
    if (values.help === true || positionals.length === 1) return { values: Object.entries(values), positionals };
    return `${positionals.length} arguments given, must be A`;
  } catch (error) {
    return (error as Error).message.split(/\.\s/)[0];
  }
}

function parse(args: string[]) {
  try {
    const { values, positionals } = parseArguments(COMMAND, args);
    return { values: Object.entries(values), positionals };
  } catch (error) {
    return (error as Error).message;
  }
}

const WORDS = [
  ..."--json --force --out --out= --out=a=b --out=-1 --out=-- --top-k --help -h -hh -hx -h=1 -5 -1.5 5 - -- = --="
    .split(" "),
  ...["", "x", "true", "false", "a.b", "--out.x", "--out=x\ny", "-\n", "--no-json", "--json=1", "--json=", "---out"],
  ...["--nope", "--nope=3", "__proto__", "--__proto__=1", "--constructor"],
];

Deno.test("parseArguments: 5,000 lists of arguments give what Node's strict parser gives, errors to the letter", () => {
  const lists = fc.array(fc.constantFrom(...WORDS), { maxLength: 5 });
  fc.assert(fc.property(lists, (args) => assertEquals(parse(args), parseAsNode(args))), { numRuns: 5000, seed: 1 });
});
