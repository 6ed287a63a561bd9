// The page as a whole: what is looked at, the tabs, the address, and new data while it is live.
const TABS = {
  settings: ["Best settings", settingsView],
  studies: ["Studies", tableView],
  keys: ["Metric by key", keysView],
  parallel: ["Parallel", parallelView],
  curves: ["Learning curves", curvesView],
  tradeoff: ["Trade-off", tradeoffView],
  importance: ["Importance", importanceView],
  failures: ["Failures", failuresView],
};
let current = null;

function metrics() {
  const rows = ofQuestion();
  return data.columns.filter((c) => c.group === "metric" && rows.some((i) => c.values[i] !== null)).map((c) => c.name);
}

function options(select, names, value) {
  const pairs = names.map((n) => (Array.isArray(n) ? n : [n, n]));
  select.replaceChildren(...pairs.map(([own, text]) => el("option", { value: String(own), selected: own === value }, text)));
}

function refreshStates() {
  const states = column("state").values;
  const counts = {};
  for (const i of ofQuestion()) counts[states[i]] = (counts[states[i]] || 0) + 1;
  $("#states").replaceChildren(
    ...Object.keys(STATES)
      .filter((s) => counts[s])
      .map((s) =>
        el("button", {
          type: "button", class: "chip", style: `--c:${STATES[s].color}`, "data-state": s, "aria-pressed": String(chosen.states.has(s)),
          onclick: (event) => {
            if (!chosen.states.delete(s)) chosen.states.add(s);
            chosen.page = 0;
            refresh();
            $(`#states [data-state="${s}"]`).focus();
          },
        }, el("i", { "aria-hidden": "true" }, STATES[s].sign), ` ${counts[s]} ${s}`)),
  );
}

// What stands above the tabs and follows every filter.
function refreshBar() {
  const shownNow = visible().length;
  const all = ofQuestion().length;
  $("#count").textContent = shownNow === all ? plural(all, "study") : `${shownNow} of ${plural(all, "study")}`;
  $("#clear").disabled = !filtered();
  answer($("#answer"));
}

function refresh(fresh = false) {
  const names = metrics();
  if (!names.includes(chosen.metric)) chosen.metric = names[0] ?? null;
  options($("#metric"), names, chosen.metric);
  $("#metric").disabled = !names.length;
  $("#direction").hidden = !names.length;
  $("#direction").textContent = higher(chosen.metric) ? "▲ higher is better" : "▼ lower is better";
  $("#question-box").hidden = data.questions.length < 2;
  options(
    $("#question"),
    [[-1, "all problems"], ...data.questions.map((q, i) => [i, q.goal ? `${q.problem} (${q.goal})` : q.problem])],
    chosen.question ?? -1,
  );
  refreshStates();
  refreshBar();
  const states = column("state").values;
  const bad = ofQuestion().filter((i) => ["failed", "interrupted", "missing"].includes(states[i])).length;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    if (tab.dataset.tab === "failures") tab.textContent = bad ? `Failures (${bad})` : "Failures";
  }
  current?.update(fresh);
}

function show(tab, focus = false) {
  chosen.tab = tab;
  for (const button of document.querySelectorAll("[role=tab]")) {
    const on = button.dataset.tab === tab;
    button.setAttribute("aria-selected", String(on));
    button.tabIndex = on ? 0 : -1;
    if (on && focus) button.focus();
  }
  const view = $("#view");
  view.replaceChildren();
  view.dataset.tab = tab;
  view.setAttribute("aria-label", TABS[tab][0]);
  current = TABS[tab][1](view);
  refreshBar();
  address();
}

function address() {
  const parts = [`tab=${chosen.tab}`];
  if (chosen.study) parts.push(`study=${chosen.study}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
}

function header() {
  const [only, another] = data.questions;
  const name = only && !another ? [only.problem, only.goal].filter(Boolean).join(": ") : data.title;
  $("#title").textContent = name;
  document.title = `${name} – genopt report`;
  const began = data.command || data.title;
  $("#about").replaceChildren(el("code", { title: data.title }, began), ` · ${live ? "live, last change" : "written"} ${data.written}`);
}

async function poll() {
  try {
    const answer = await fetch(`data.json?since=${data.version}`, { cache: "no-store" });
    const fresh = await answer.json();
    if (fresh.version !== data.version && fresh.columns) {
      data = fresh;
      header();
      refresh(true);
      if (chosen.study) showStudy(chosen.study, null, false);
    }
    document.body.classList.remove("lost");
  } catch {
    // the server has ended; what is shown stays
    document.body.classList.add("lost");
    $("#about").textContent = `the server has ended; as of ${data.written}`;
  }
  setTimeout(poll, 2000);
}

function start() {
  header();
  $("#tabs").append(
    ...Object.entries(TABS).map(([name, [title]]) =>
      el("button", { type: "button", role: "tab", "data-tab": name, "aria-controls": "view", onclick: () => show(name) }, title)),
  );
  $("#tabs").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const names = Object.keys(TABS);
    show(names[(names.indexOf(chosen.tab) + by + names.length) % names.length], true);
    event.preventDefault();
  });
  $("#metric").addEventListener("change", (event) => {
    chosen.metric = event.target.value;
    refresh();
  });
  $("#direction").addEventListener("click", () => {
    chosen.better[chosen.metric] = higher(chosen.metric) ? "low" : "high";
    refresh();
  });
  $("#question").addEventListener("change", (event) => {
    const value = Number(event.target.value);
    chosen.question = value < 0 ? null : value;
    chosen.page = 0;
    refresh();
  });
  $("#clear").addEventListener("click", () => {
    clearFilters();
    refresh(true);
  });
  $("#zoom").addEventListener("click", () => $("#zoom").close());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !$("#zoom").open) hideStudy();
  });
  if (data.questions.length > 1) {
    const counts = range(data.questions.length).map((q) => data.asked.filter((a) => a === q).length);
    chosen.question = counts.indexOf(Math.max(...counts));
  }
  const wanted = new URLSearchParams(location.hash.slice(1));
  refresh();
  const tab = wanted.get("tab");
  show(tab in TABS ? tab : settingColumns().length && chosen.metric ? "settings" : "studies");
  if (wanted.get("study")) showStudy(wanted.get("study"), null, false);
  if (live) setTimeout(poll, 2000);
  requestAnimationFrame(() => {
    performance.mark("ready");
    document.documentElement.dataset.ready = "yes";
  });
}

start();
