"""How the page looks, in light, in dark, on a small screen and on paper."""

STYLE = """
:root { color-scheme: light dark;
  --page:#fbfbf9; --ink:#1c2128; --quiet:#5d6673; --grid:#dcdfe3; --card:#ffffff; --a:#c2410c; --b:#1d5fa8;
}
@media (prefers-color-scheme: dark) {
  :root { --page:#14171b; --ink:#e6e8eb; --quiet:#9aa4b1; --grid:#343b44; --card:#1b1f25; --a:#fb923c; --b:#6fb0f5; }
}
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif; }
main { max-width:54rem; margin:0 auto; padding:2.5rem 1.25rem 4rem; }
.kicker { color:var(--quiet); font-size:.85rem; margin:0 0 .5rem; }
h1 { font-size:clamp(1.6rem,4.5vw,2.4rem); line-height:1.15; letter-spacing:-.02em; margin:0 0 .75rem; text-wrap:balance; }
.headline { font-size:clamp(1.1rem,2.6vw,1.4rem); line-height:1.35; margin:0 0 1.75rem; max-width:42rem; }
h2 { font-size:1.25rem; letter-spacing:-.01em; margin:3rem 0 .35rem; }
h3 { font-size:1rem; margin:1.5rem 0 .4rem; }
p { margin:.4rem 0 .9rem; max-width:44rem; }
.quiet, .quiet a { color:var(--quiet); }
.keys { display:grid; grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr)); gap:.75rem; margin:0; }
.keys div { background:var(--card); border:1px solid var(--grid); border-radius:.5rem;
  padding:.75rem .9rem; }
.keys dt { color:var(--quiet); font-size:.8rem; line-height:1.3; }
.keys dd { margin:.2rem 0 0; font-size:1.15rem; font-weight:600;
  font-variant-numeric:tabular-nums; letter-spacing:-.01em; line-height:1.25; }
.keys small { display:block; font-size:.8rem; font-weight:400; color:var(--quiet); letter-spacing:0; }
figure { margin:1rem 0 1rem; }
figure svg { display:block; width:100%; height:auto; overflow:visible; }
.small { display:none; }
@media (max-width: 620px) { .wide { display:none; } .small { display:block; } main { padding-top:1.5rem; } }
figcaption, .note { color:var(--quiet); font-size:.875rem; }
.legend { display:flex; flex-wrap:wrap; gap:.25rem 1rem; list-style:none; margin:.25rem 0; padding:0; font-size:.85rem; }
.legend i { display:inline-block; width:.8rem; height:.8rem; border-radius:.15rem; margin-right:.4rem; vertical-align:-.08rem; }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; width:100%; font-size:.875rem; line-height:1.4; font-variant-numeric:tabular-nums; }
caption { text-align:left; color:var(--quiet); padding:0 0 .35rem; }
th, td { text-align:left; vertical-align:top; padding:.42rem .9rem .42rem 0; border-bottom:1px solid var(--grid); }
thead th { color:var(--quiet); font-weight:500; vertical-align:bottom; border-bottom-color:var(--quiet); }
tbody th { font-weight:500; min-width:8.5rem; }
.n { text-align:right; white-space:nowrap; }
thead th.n { white-space:normal; }
code { font-size:.92em; }
.scroll + .scroll { margin-top:1rem; }
td.source { min-width:14rem; overflow-wrap:anywhere; }
tr.again th, tr.again td { border-bottom-style:dotted; }
tr.other th, tr.other td { color:var(--quiet); }
tr.rejected .value { text-decoration:line-through; }
td code { white-space:nowrap; }
.tag { display:inline-block; border:1px solid var(--grid); border-radius:1rem; padding:0 .5rem; font-size:.78rem; white-space:nowrap; }
details { margin:.75rem 0; }
summary { cursor:pointer; font-weight:500; padding:.3rem 0; }
summary:focus-visible, .scroll:focus-visible { outline:2px solid var(--b); outline-offset:2px; }
.weight { display:inline-block; height:.5rem; border-radius:.15rem; background:var(--a); margin-right:.5rem; }
.bar { white-space:nowrap; }
footer { margin-top:3rem; border-top:1px solid var(--grid); padding-top:1rem; color:var(--quiet); font-size:.85rem; }
a { color:inherit; text-decoration-color:var(--quiet); text-underline-offset:.15em; }
@media (max-width: 620px) {
  .facts thead { display:none; } .facts, .facts tbody, .facts caption { display:block; }
  .facts tr { display:grid; grid-template-columns:1fr auto; padding:.4rem 0; border-bottom:1px solid var(--grid); }
  .facts th, .facts td { border:0; padding:.1rem 0; } .facts td.source { grid-column:1 / -1; }
  .facts td + td:not(.source) { color:var(--quiet); }
}
@media print {
  :root { --page:#fff; --ink:#000; --quiet:#444; --grid:#bbb; --card:#fff; --a:#c2410c; --b:#1d5fa8; }
  body { font-size:10.5pt; } main { max-width:none; padding:0; }
  h2 { break-after:avoid; margin-top:1.6rem; } figure, tr { break-inside:avoid; }
  .wide { display:block; } .small { display:none; } .scroll { overflow:visible; }
  details::details-content { content-visibility:visible; display:block; }
}
"""
