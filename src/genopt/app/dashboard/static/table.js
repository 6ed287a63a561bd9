// The table of studies: sorted by a click on a head, filtered by the line below it, shown in pages.
const PER_PAGE = 100;

function shownColumns() {
  return data.columns.filter((c) => chosen.columns[c.name] ?? c.shown);
}

// Widths come from all studies, so that neither pages nor filters move a column.
function width(col) {
  // a name breaks at its signs
  let most = Math.min(Math.max(...col.name.split(/[/._]/).map((word) => word.length + 1)), 14);
  for (let i = 0; i < col.values.length; i += 1) {
    const length = col.kind === "state" ? 13 : shown(col, i).length;
    if (length > most) most = length;
  }
  return Math.max(6, Math.min(most, 34)) + 2;
}

function columnPicker(redraw) {
  const groups = { study: "Study", key: "Keys", metric: "Numbers" };
  const boxes = Object.entries(groups).map(([group, title]) => {
    const own = data.columns.filter((c) => c.group === group);
    const box = (col) =>
      el(
        "label",
        {},
        el("input", {
          type: "checkbox",
          checked: chosen.columns[col.name] ?? col.shown,
          onchange: (event) => {
            chosen.columns[col.name] = event.target.checked;
            redraw();
          },
        }),
        col.name,
      );
    const first = own.filter((c) => group !== "key" || c.setting);
    const others = own.filter((c) => group === "key" && !c.setting);
    return el(
      "fieldset",
      {},
      el("legend", {}, title),
      first.map(box),
      others.length
        ? el("details", {}, el("summary", {}, `${others.length} that follow from a choice`), others.map(box))
        : null,
    );
  });
  return el("details", { class: "picker" }, el("summary", {}, "Columns"), el("div", { class: "boxes" }, boxes));
}

function tableView(root) {
  const scroll = el("div", { class: "scroll" });
  const foot = el("div", { class: "pages" });
  const picker = columnPicker(() => draw());
  root.append(el("div", { class: "tools" }, picker, el("span", { class: "hint" },
    "Filters: text, !text, a|b; numbers >1e-3, <2, 1..5; – for missing. Enter opens a study.")), scroll, foot);
  let body;

  function head(columns) {
    const titles = columns.map((col) => {
      const on = chosen.sort?.name === col.name;
      const mark = on ? (chosen.sort.down ? " ▼" : " ▲") : "";
      return el(
        "th",
        { scope: "col", "aria-sort": on ? (chosen.sort.down ? "descending" : "ascending") : "none" },
        el(
          "button",
          {
            type: "button",
            title: `Sort by ${col.name}`,
            "data-sort": col.name,
            onclick: () => {
              const first = col.better === "high";
              chosen.sort = on ? { name: col.name, down: !chosen.sort.down } : { name: col.name, down: first };
              chosen.page = 0;
              draw();
              scroll.querySelector(`[data-sort="${CSS.escape(col.name)}"]`)?.focus();
            },
          },
          el("span", {}, col.name.replace(/([/._])/g, "$1\u200b")),
          mark,
        ),
      );
    });
    const filters = columns.map((col) =>
      el(
        "td",
        {},
        el("input", {
          type: "search",
          value: chosen.filters[col.name] || "",
          "aria-label": `Filter ${col.name}`,
          placeholder: col.kind === "number" ? "< >" : "filter",
          "data-filter": col.name,
          oninput: (event) => {
            setFilter(col.name, event.target.value);
            event.target.classList.toggle("unread", test(col, event.target.value) === null);
            rows();
            refreshBar();
          },
        }),
      ),
    );
    return el("thead", {}, el("tr", {}, titles), el("tr", { class: "filters" }, filters));
  }

  function rows() {
    const columns = shownColumns();
    let found = visible();
    if (chosen.sort) found = sorted(found, chosen.sort.name, chosen.sort.down);
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    chosen.page = Math.min(chosen.page, pages - 1);
    const here = found.slice(chosen.page * PER_PAGE, (chosen.page + 1) * PER_PAGE);
    chosen.order = found;
    const fragment = document.createDocumentFragment();
    here.forEach((i, place) => {
      const row = el("tr", {
        "data-id": data.ids[i],
        tabIndex: place ? -1 : 0,
        "aria-selected": String(chosen.study === data.ids[i]),
      });
      for (const col of columns) {
        const cell = document.createElement("td");
        if (col.kind === "state") cell.append(chip(col.values[i]));
        else {
          cell.textContent = shown(col, i);
          if (col.kind === "number") cell.className = "n";
          else cell.title = cell.textContent;
        }
        row.append(cell);
      }
      fragment.append(row);
    });
    body.replaceChildren(fragment);
    if (!here.length) {
      body.append(el("tr", { class: "none" }, el("td", { colSpan: columns.length }, "No study passes these filters.")));
    }
    const turn = (by, word) =>
      el("button", {
        type: "button",
        class: "quiet",
        disabled: chosen.page + by < 0 || chosen.page + by >= pages,
        onclick: () => {
          chosen.page += by;
          rows();
          scroll.scrollTop = 0;
        },
      }, word);
    const from = chosen.page * PER_PAGE;
    foot.replaceChildren(
      el("span", {}, here.length ? `${from + 1}–${from + here.length} of ${plural(found.length, "study")}` : ""),
      ...(pages > 1 ? [turn(-1, "← Previous"), turn(1, "Next →")] : []),
    );
  }

  function draw() {
    const columns = shownColumns();
    const [left, top] = [scroll.scrollLeft, scroll.scrollTop];
    // new data come while somebody types or reads: the place is kept
    const { filter, id } = scroll.contains(document.activeElement) ? document.activeElement.dataset : {};
    const typed = filter ? document.activeElement.selectionStart : 0;
    const widths = columns.map((col) => el("col", { style: `width:${width(col)}ch` }));
    body = el("tbody", {
      onclick: (event) => open(event.target.closest("tr")),
      onkeydown: (event) => {
        const row = event.target.closest("tr");
        if (event.key === "Enter" || event.key === " ") open(row);
        else if (event.key === "ArrowDown") move(row, row.nextElementSibling);
        else if (event.key === "ArrowUp") move(row, row.previousElementSibling);
        else return;
        event.preventDefault();
      },
    });
    const total = columns.reduce((sum, col) => sum + width(col), 0);
    const table = el("table", { class: "studies", style: `width:${total}ch` }, el("colgroup", {}, widths), head(columns), body);
    scroll.replaceChildren(table);
    rows();
    scroll.scrollTo(left, top);
    if (filter) {
      const field = scroll.querySelector(`[data-filter="${CSS.escape(filter)}"]`);
      field?.focus({ preventScroll: true });
      field?.setSelectionRange(typed, typed);
    } else if (id) scroll.querySelector(`[data-id="${id}"]`)?.focus({ preventScroll: true });
  }

  function open(row) {
    if (row?.dataset.id) showStudy(row.dataset.id, row);
  }

  function move(row, next) {
    if (!next?.dataset.id) return;
    row.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    if (chosen.study) showStudy(next.dataset.id, next, false);
  }

  draw();
  return { update: (fresh) => (fresh ? draw() : rows()) };
}
