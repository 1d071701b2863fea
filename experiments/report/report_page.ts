// The report: one HTML page with every claim, verdict, table, plot and raw sample, which needs no network.
import { escapeText } from "../results/escape_text.ts";
import { EXPERIMENTS } from "../registry.ts";
import { hasPlot, plotOf } from "../plots/plots.ts";
import { formatCell, type ResultsByPlace } from "../render.ts";
import { PEERS_ID, peersBeside } from "../results/peers.ts";
import type { Cell, Result } from "../results/result.ts";
import { anchorOf, badge, resultSection } from "./result_section.ts";
import sortTables from "./sort_tables.js" with { type: "text" };
import style from "./style.css" with { type: "text" };

export async function renderReport(byPlace: ResultsByPlace): Promise<string> {
  const sections: string[] = [];
  for (const { id, title, claim } of EXPERIMENTS) {
    const parts: string[] = [];
    for (const [place, results] of byPlace) {
      const result = results.get(id);
      if (!result) continue;
      const peers = peersBeside(results.get(PEERS_ID), id);
      parts.push(resultSection(place, result, hasPlot(result) ? await plotOf(result, peers) : undefined, peers));
    }
    sections.push(`<section id="${id}">
<h2>${escapeText(title)}</h2>
<p class="claim">Claim: ${escapeText(claim)}</p>
${parts.join("\n") || "<p>Not measured on any device.</p>"}
</section>`);
  }
  return page(summary(byPlace), sections.join("\n"));
}

function summary(byPlace: ResultsByPlace): string {
  const places = [...byPlace.keys()];
  const rows = EXPERIMENTS.map(({ id, claim }) => {
    const results = places.map((place) => byPlace.get(place)?.get(id));
    const verdict = results.find((result) => result)?.verdict;
    const cells = results.map((result, i) =>
      `<td data-label="${places[i]}">${result ? summaryCell(result, places[i]) : "-"}</td>`
    );
    return `<tr><td><a href="#${id}"><b>${id}</b></a>: ${escapeText(claim)}</td>` +
      `<td data-label="paper">${verdict ? valueCell(verdict.paper, verdict.unit) : "-"}</td>${cells.join("")}</tr>`;
  });
  const headers = ["claim", "paper", ...places].map((name) => `<th>${escapeText(name)}</th>`);
  return `<div class="wide"><table class="summary"><thead><tr>${headers.join("")}</tr></thead>
<tbody>${rows.join("\n")}</tbody></table></div>`;
}

function summaryCell({ id, verdict: { measured, unit, status } }: Result, place: string): string {
  const value = measured === null ? "" : `<br>${valueCell(measured, unit)}`;
  return `<a href="#${anchorOf(id, place)}">${badge(status)}</a>${value}`;
}

function valueCell(value: Cell, unit: string): string {
  return `<b>${escapeText(formatCell(value))}</b> <small>${escapeText(unit)}</small>`;
}

function page(summary: string, sections: string): string {
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>twobit: what holds of "Enabling Fast 2-bit LLM on GPUs"</title>
<style>
${style}</style>
</head>
<body>
<header>
<h1>twobit: the paper's claims, measured</h1>
<p>Each claim of “Enabling Fast 2-bit LLM on GPUs: Memory Alignment, Sparse Outlier, and Asynchronous Dequantization”
(<a href="https://arxiv.org/abs/2311.16442">arXiv 2311.16442</a>) against what this repository's code measured.
The paper's numbers are about Llama-2 on its authors' GPUs; accuracies here are of much smaller models
(the embedded one has 13 million parameters), so compare methods with each other. Every number comes from a result file: a table's last column, where there is
one, opens a row's raw samples, and a cell shows all its digits when pointed at. Click a column's head to sort.</p>
</header>
<main>
<h2 id="summary">Summary</h2>
${summary}
${sections}
</main>
<script>
${sortTables}</script>
</body>
</html>
`;
}
