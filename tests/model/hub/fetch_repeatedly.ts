// A process that fetches a model 25 times, each time into another empty cache, at the moments at which others like it do.
// Run: deno run -A fetch_repeatedly.ts NAME ENDPOINT CACHE START_MS; prints how many fetches gave whole files.
import { fetchModel } from "../../../model/hub/hub_model.ts";
import { parseHubName } from "../../../model/hub/hub_repo.ts";

const [name, endpoint, cache, startMs] = Deno.args;
let whole = 0;
for (let round = 0; round < 25; round++) {
  const waitMs = Number(startMs) + round * 200 - Date.now();
  await new Promise((wake) => setTimeout(wake, Math.max(0, waitMs)));
  const settings = { endpoint, cache: `${cache}${round}`, offline: false, retryDelayMs: 5, stallMs: 20_000 };
  try {
    const directory = await fetchModel(parseHubName(`hf:${name}`), settings);
    const sizes = await Promise.all(
      ["config.json", "tokenizer.json", "model-00001-of-00003.safetensors"].map(async (file) =>
        (await Deno.readFile(`${directory}/${file}`)).length
      ),
    );
    if (sizes.every((size) => size > 1)) whole++;
  } catch (error) {
    console.error(String(error));
  }
}
console.log(whole);
