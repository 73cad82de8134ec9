// Keeps an open board current, makes it sound, and says when it cannot. Every page works without this file.
"use strict";

(() => {
  const root = document.documentElement;
  const BEAT_LOST_MS = 15000;
  const EVERY_S = { escalated: 5, urgent: 10, soon: 30, routine: 120 };
  const LOST_EVERY_S = 30;
  const PATIENCE_MS = 20000;
  const TOLD_MS = 15000;

  let version = root.dataset.version;
  let heardAt = Date.now();
  let source = null;
  let refreshing = false;
  let again = false;
  let toldUntil = 0;

  const by = (id) => document.getElementById(id);

  // --- keeping the page current ---------------------------------------------------------------------------------

  // What a part says, apart from what this script writes into it.
  const said = (element) => {
    const copy = element.cloneNode(true);
    for (const elapsed of copy.querySelectorAll(".elapsed")) elapsed.textContent = "";
    for (const busy of copy.querySelectorAll("[aria-busy]")) busy.removeAttribute("aria-busy");
    return copy.outerHTML;
  };

  // A card that says the same stays the same element, so that nobody's finger or focus loses its button.
  const replaceKeyed = (list, fresh) => {
    const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
    const wanted = [...fresh.children].map((child) => {
      const kept = old.get(child.dataset.key);
      return kept && said(kept) === said(child) ? kept : document.adoptNode(child);
    });
    for (const child of [...list.children]) if (!wanted.includes(child)) child.remove();
    wanted.forEach((child, place) => {
      if (list.children[place] !== child) list.insertBefore(child, list.children[place] || null);
    });
  };

  const alertIds = () => new Set((by("bell")?.dataset.ids || "").split(" ").filter(Boolean));

  const apply = (fresh, answer) => {
    const before = alertIds();
    const focused = document.activeElement;
    const wasOnCard = Boolean(focused?.closest("#cards"));
    for (const part of [...document.querySelectorAll("[data-part]")]) {
      const other = fresh.getElementById(part.id);
      if (!other || said(part) === said(other)) continue;
      // What somebody was just told stays long enough to be read.
      if (part.id === "told" && !answer && Date.now() < toldUntil) continue;
      if ("keyed" in part.dataset) replaceKeyed(part, other);
      else part.replaceWith(document.adoptNode(other));
    }
    const form = by("acknowledge");
    const freshForm = fresh.getElementById("acknowledge");
    if (form && freshForm) form.className = freshForm.className;
    document.title = fresh.title;
    version = fresh.documentElement.dataset.version;
    if (wasOnCard && !document.contains(focused)) {
      (document.querySelector("#cards button") || by("alerts-title"))?.focus();
    }
    const added = [...alertIds()].filter((id) => !before.has(id));
    if (added.length) announce(added);
    elapse();
    if (added.length) ring(true);
  };

  const announce = (added) => {
    const place = by("announce");
    const names = [...document.querySelectorAll("#cards .card")]
      .filter((card) => card.querySelector("button").value.split(" ").some((id) => added.includes(id)))
      .map((card) => `${card.querySelector("h2").textContent}, ${card.querySelector(".label").textContent}`);
    place.textContent = `${place.dataset.lead}: ${names.join("; ") || by("bell").textContent}`;
  };

  const ask = (path, options) =>
    fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS), ...options });

  const take = async (response, answer) => {
    if (new URL(response.url).pathname === "/login") {
      location.assign("/login");
      return;
    }
    const type = response.headers.get("content-type") || "";
    if (!type.startsWith("text/html")) throw new Error("no page");
    apply(new DOMParser().parseFromString(await response.text(), "text/html"), answer);
  };

  const refresh = async () => {
    if (refreshing) {
      again = true;
      return;
    }
    refreshing = true;
    try {
      await take(await ask(location.pathname));
      heard();
    } catch {
      // The watch below says so when it lasts.
    }
    refreshing = false;
    if (again) {
      again = false;
      refresh();
    }
  };

  // --- the connection -------------------------------------------------------------------------------------------

  const heard = () => {
    heardAt = Date.now();
    const lost = by("lost");
    if (lost && !lost.hidden) {
      lost.hidden = true;
      lost.textContent = "";
    }
  };

  const connect = () => {
    source?.close();
    source = new EventSource("/events");
    source.addEventListener("version", (event) => {
      heard();
      if (event.data !== version) refresh();
    });
    source.addEventListener("ended", () => location.assign("/login"));
  };

  const watch = () => {
    const silent = Date.now() - heardAt > BEAT_LOST_MS;
    const lost = by("lost");
    if (silent && lost?.hidden) {
      lost.hidden = false;
      lost.textContent = lost.dataset.text;
    }
    // Where streams do not work the page is asked for; where the box is gone this finds it again.
    if (silent || source?.readyState === EventSource.CLOSED) {
      refresh();
      connect();
    }
  };

  // --- sound ----------------------------------------------------------------------------------------------------

  let context = null;
  let rangAt = 0;
  const wanted = () => {
    try {
      return localStorage.getItem("board-sound") === "on";
    } catch {
      return root.dataset.sound === "on";
    }
  };
  const want = (on) => {
    root.dataset.sound = on ? "on" : "off";
    try {
      localStorage.setItem("board-sound", on ? "on" : "off");
    } catch {
      // A browser that keeps nothing: it holds for this page.
    }
  };
  const sounding = () => wanted() && context?.state === "running";

  const showSound = () => {
    const button = by("sound");
    if (!button) return;
    const state = sounding() ? "on" : wanted() ? "blocked" : "off";
    button.hidden = false;
    button.className = `sound ${state}`;
    button.setAttribute("aria-pressed", String(state === "on"));
    if (button.textContent !== button.dataset[state]) button.textContent = button.dataset[state];
  };

  const wake = async () => {
    if (!wanted()) return;
    if (!context) {
      context = new AudioContext();
      context.addEventListener("statechange", showSound);
    }
    if (context.state !== "running") {
      try {
        await context.resume();
      } catch {
        // Blocked until somebody presses something; the button says so.
      }
    }
    showSound();
  };

  const tone = (at, hertz, seconds, loudness) => {
    const oscillator = context.createOscillator();
    const volume = context.createGain();
    oscillator.type = "triangle";
    oscillator.frequency.value = hertz;
    volume.gain.setValueAtTime(0, at);
    volume.gain.linearRampToValueAtTime(loudness, at + 0.02);
    volume.gain.setValueAtTime(loudness, at + seconds - 0.03);
    volume.gain.linearRampToValueAtTime(0, at + seconds);
    oscillator.connect(volume).connect(context.destination);
    oscillator.start(at);
    oscillator.stop(at + seconds);
  };

  const play = (worst) => {
    const patterns = {
      escalated: [988, 784, 988, 784, 988],
      urgent: [988, 784, 988],
      soon: [784, 784],
      routine: [784],
      lost: [330, 262],
      test: [784],
    };
    const now = context.currentTime + 0.05;
    const loudness = worst === "test" ? 0.3 : 0.9;
    patterns[worst].forEach((hertz, place) => tone(now + place * 0.28, hertz, 0.22, loudness));
    root.dataset.beeps = String(Number(root.dataset.beeps || 0) + 1);
    root.dataset.lastBeep = worst;
  };

  const ring = (atOnce) => {
    const isLost = by("lost") && !by("lost").hidden;
    const worst = by("bell")?.dataset.worst || (isLost ? "lost" : "");
    if (!worst) {
      rangAt = 0;
      return;
    }
    const every = worst === "lost" ? LOST_EVERY_S : EVERY_S[worst];
    if (!sounding() || (!atOnce && Date.now() - rangAt < every * 1000)) return;
    rangAt = Date.now();
    play(worst);
  };

  // --- times that pass ------------------------------------------------------------------------------------------

  const elapse = () => {
    const minutes = new Intl.RelativeTimeFormat(root.lang, { numeric: "always" });
    for (const place of document.querySelectorAll(".elapsed")) {
      const since = Date.parse(place.parentElement.querySelector("time").dateTime);
      const passed = Math.floor((Date.now() - since) / 60000);
      const text = passed < 60 ? minutes.format(-passed, "minute") : minutes.format(-Math.floor(passed / 60), "hour");
      place.textContent = passed >= 1 ? `(${text})` : "";
    }
  };

  // --- what people do -------------------------------------------------------------------------------------------

  // Without loading the page anew, so that the browser goes on allowing the sound.
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    const pressed = event.submitter;
    if (form.id !== "acknowledge" || !pressed?.value) return;
    event.preventDefault();
    // Not disabled, or the focus would be lost.
    if (pressed.ariaBusy === "true") return;
    const fields = new URLSearchParams(new FormData(form));
    fields.set(pressed.name, pressed.value);
    pressed.ariaBusy = "true";
    try {
      toldUntil = Date.now() + TOLD_MS;
      await take(await ask(form.action, { method: "POST", body: fields }), true);
      heard();
    } catch {
      const told = by("told");
      if (told) {
        told.textContent = by("lost").dataset.text;
        told.classList.add("problem");
      }
    }
    pressed.ariaBusy = "false";
  });

  by("sound")?.addEventListener("click", async () => {
    if (sounding()) {
      want(false);
      await context.suspend();
      showSound();
      return;
    }
    want(true);
    await wake();
    if (sounding()) play("test");
  });
  for (const kind of ["pointerdown", "keydown"]) {
    document.addEventListener(kind, (event) => {
      if (!event.target.closest?.("#sound")) wake();
    });
  }

  showSound();
  wake();
  elapse();
  connect();
  setInterval(watch, 3000);
  setInterval(() => ring(false), 1000);
  setInterval(elapse, 10000);
  // A PC that slept has missed beats.
  document.addEventListener("visibilitychange", () => document.hidden || watch());
})();
