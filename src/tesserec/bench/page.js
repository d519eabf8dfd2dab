// Tables sort by a click on (or Enter in) the head of a column: numbers by their value, the largest first; words by the alphabet.
// A cell without a value stays at the end.
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const value = (row) => row.cells[column].dataset.value ?? "";
      const rows = [...table.tBodies[0].rows];
      const words = rows.some((row) => value(row) !== "" && Number.isNaN(Number(value(row))));
      const first = words ? "ascending" : "descending";
      const other = words ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (words ? x.localeCompare(y) : Number(x) - Number(y));
      });
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      table.tBodies[0].append(...rows);
    });
  });
}
