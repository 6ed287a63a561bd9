// The study that is clicked: verdict, findings, designs, figures, and what repeats it.
async function detailsOf(id) {
  if (live) {
    const answer = await fetch(`study/${id}.json`);
    return answer.ok ? answer.json() : null;
  }
  await whole;
  const block = document.getElementById(`study-${id}`);
  return block ? JSON.parse(block.textContent) : null;
}

function copied(text) {
  const button = el("button", { type: "button", class: "quiet copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // without a clipboard the text is chosen, ready for Ctrl-C
      window.getSelection().selectAllChildren(button.previousElementSibling);
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return el("span", { class: "command" }, el("code", {}, text), button);
}

const part = (title, ...content) => el("section", {}, el("h3", {}, title), content);

function cells(values, columns) {
  return values.map((value, i) =>
    el("td", { class: typeof value === "number" ? "n" : "" }, typeof value === "number" ? short(value, 4) : value, columns ? "" : ""));
}

function designs(top) {
  if (!top?.columns) return null;
  const head = el("tr", {}, top.columns.map((name) => el("th", { scope: "col" }, name.replace(/_/g, "_\u200b"))));
  const rows = top.rows.map((row) => el("tr", {}, cells(row, top.columns)));
  const more = top.more ? el("p", { class: "hint" }, `${top.more} more in top.csv`) : null;
  return part("Best designs", el("div", { class: "scroll auto" }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows))), more);
}

function pictures(figures) {
  if (!figures?.length) return null;
  const linked = !figures[0].src.startsWith("data:") && !live;
  return part(
    "Figures",
    linked ? el("p", { class: "hint" }, "These figures lie beside the page; move them together.") : null,
    el("div", { class: "figures" },
      figures.map(({ name, src, width, height }) => {
        const image = el("img", { src, alt: name.replace(/_/g, " "), loading: "lazy", width, height });
        image.addEventListener("error", () => image.replaceWith(el("p", { class: "hint" }, `${name}.png is not beside the page`)));
        return el("button", { type: "button", class: width > 2 * height ? "thumb broad" : "thumb", title: "Enlarge", onclick: () => enlarge(src, name) }, image,
          el("small", {}, name.replace(/_/g, " ")));
      })),
  );
}

function enlarge(src, name) {
  const dialog = $("#zoom");
  const image = $("img", dialog);
  image.src = src;
  image.alt = name;
  dialog.showModal();
}

function facts(rows) {
  return el("table", { class: "facts" }, el("tbody", {}, rows.map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)))));
}

let opener = null;

async function showStudy(id, from, focus = true) {
  const i = data.ids.indexOf(id);
  if (i < 0) return;
  if (from) opener = from;
  chosen.study = id;
  address();
  for (const row of document.querySelectorAll("tr[data-id]")) row.setAttribute("aria-selected", String(row.dataset.id === id));
  const said = (await detailsOf(id)) || {};
  // another one may have been clicked while this one was read
  if (chosen.study !== id) return;
  const state = column("state").values[i];
  const drawer = $("#study");
  const has = (c) => c.values[i] !== null && c.values[i] !== "";
  const numbers = data.columns.filter((c) => c.group === "metric" && has(c)).map((c) => [c.name, short(c.values[i], 4)]);
  const keys = data.columns.filter((c) => (c.setting || c.name === "seed") && has(c)).map((c) => [c.name, shown(c, i)]);
  const close = el("button", { type: "button", class: "quiet close", onclick: hideStudy, "aria-label": "Close (Esc)" }, "✕");
  const findings = (said.findings || []).map((f) =>
    el("li", {}, el("b", {}, f.fault), `: ${f.what}. `, el("span", { class: "advice" }, `Change: ${f.advice}`)));
  drawer.replaceChildren(
    el("header", {}, el("h2", {}, column("study").values[i]), chip(state), close),
    el("div", { class: "inside" },
      [
        data.errors[i] ? part("Why it failed", el("pre", { class: "log wrap" }, data.errors[i])) : null,
        said.verdict ? part("Verdict", el("p", {}, said.verdict)) : null,
        keys.length ? part("Setting", facts(keys)) : null,
        said.command ? part("Repeat it", copied(said.command)) : null,
        findings.length ? part("Findings", el("ul", { class: "findings" }, findings)) : null,
        pictures(said.figures),
        designs(said.top),
        numbers.length ? part("Numbers", facts(numbers)) : null,
        said.log?.length ? part("Last lines of its log", el("pre", { class: "log" }, said.log.join("\n"))) : null,
        said.folder ? part("Folder", copied(said.folder)) : null,
        said.config ? el("details", {}, el("summary", {}, "Configuration"), el("pre", { class: "log" }, said.config)) : null,
      ].filter(Boolean)),
  );
  drawer.hidden = false;
  // the last words matter most
  for (const log of drawer.querySelectorAll("section > .log")) log.scrollTop = log.scrollHeight;
  drawer.dataset.study = id;
  if (focus) close.focus({ preventScroll: true });
}

function hideStudy() {
  if (!chosen.study) return;
  chosen.study = null;
  $("#study").hidden = true;
  for (const row of document.querySelectorAll('tr[aria-selected="true"]')) row.setAttribute("aria-selected", "false");
  address();
  if (opener?.isConnected) opener.focus();
}
