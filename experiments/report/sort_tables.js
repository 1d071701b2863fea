// Sorts a table by the column whose head is clicked: ascending, then descending. Empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  for (const [column, head] of heads.entries()) {
    head.querySelector("button")?.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const numeric = head.classList.contains("number");
      const keyOf = ({ cells }) => numeric ? cells[column].dataset.value : cells[column].textContent;
      const rows = [...body.rows].map((row) => ({ row, key: keyOf(row) }));
      rows.sort(({ key: a }, { key: b }) => {
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        const order = numeric ? a - b : a.localeCompare(b, "en", { numeric: true });
        return descending ? -order : order;
      });
      body.append(...rows.map(({ row }) => row));
    });
  }
}

// A link to something inside a closed part opens it; paper shows everything but the raw samples.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not(.samples)")) part.open = true;
});
