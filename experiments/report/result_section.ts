// One result of one device as a part of the report.
import { escapeText } from "../results/escape_text.ts";
import { formatCell, withUnit } from "../render.ts";
import { describePeers } from "../results/peers.ts";
import type { Cell, Result } from "../results/result.ts";
import { resultTable } from "./result_table.ts";

export function anchorOf(id: string, device: string): string {
  return `${id}-${device.replaceAll("/", "-")}`;
}

/** Verdict, plot, table, rows of other programs, settings and environment; closed where nothing was measured. */
export function resultSection(device: string, result: Result, plot: string | undefined, peers?: Result): string {
  const { id, title, verdict } = result;
  const open = verdict.status === "not measured" ? "" : " open";
  return `<details class="result" id="${anchorOf(id, device)}"${open}>
<summary><h3>${escapeText(device)}</h3> ${badge(verdict.status)}</summary>
<p>Paper: <b>${escapeText(withUnit(verdict.paper, verdict.unit))}</b>.
Measured: <b>${escapeText(withUnit(verdict.measured, verdict.unit))}</b>.</p>
<p>${escapeText(verdict.note)}</p>
${plot ? `<figure aria-label="${escapeText(title)}">${plot}</figure>` : ""}
${resultTable(result)}
${peers ? `<p>${escapeText(describePeers(peers))}:</p>\n${resultTable(peers)}` : ""}
<details><summary>Settings</summary>${definitions(result.settings)}</details>
<details><summary>Where and how it was measured</summary>${definitions(environmentOf(result))}
<p>Raw data: <a href="${device}/${id}.json">${device}/${id}.json</a></p></details>
</details>`;
}

/** How far a claim held, in colour and in words. */
export function badge(status: Result["verdict"]["status"]): string {
  return `<span class="badge ${status.replaceAll(" ", "-")}">${status}</span>`;
}

function environmentOf({ device, environment }: Result): Record<string, Cell> {
  const { model, seed, command, startedAt, commit, dirty, deno, webgpu } = environment;
  return {
    device: `${device.name} (${device.adapter}${device.software ? ", software" : ""})`,
    command,
    model: `${model.name}, sha256 ${model.sha256}`,
    commit: `${commit}${dirty ? " with uncommitted changes" : ""}`,
    Deno: webgpu ? `${deno}, ${webgpu}` : deno,
    seed,
    started: startedAt,
  };
}

function definitions(values: Readonly<Record<string, Cell>>): string {
  const entries = Object.entries(values).map(([name, value]) =>
    `<dt>${escapeText(name)}</dt><dd>${escapeText(formatCell(value))}</dd>`
  );
  return `<dl>${entries.join("")}</dl>`;
}
