"""Leave-out trials of one form (for work on forms; `chipscale validate operators` is the product)."""

from __future__ import annotations

import collections
import sys
import time
from pathlib import Path

import numpy as np

from chipscale.catalog import load
from chipscale.operators.fit import fit, predict
from chipscale.operators.reading import assembled, read_csv, read_prior


def main(reader_name: str, csv: str) -> None:
    import importlib

    reader = importlib.import_module(f"chipscale.operators.readers.{reader_name}")
    cat = load(None)
    rows = [r for r in read_csv(Path(csv)) if not r.get("apart")]
    groups = collections.defaultdict(list)
    for r in rows:
        reading = reader.read(r)
        groups[reading.form.id].append((reading, r))
    for form_id, pairs in groups.items():
        readings, kept = [p[0] for p in pairs], [p[1] for p in pairs]
        form, t, prior = readings[0].form, assembled(readings, kept, cat), read_prior(cat, form_id)

        def show(title: str, pred: np.ndarray, mask: np.ndarray, started: float, detail: bool = False) -> None:
            e = np.abs(pred / t.seconds - 1)[mask]
            cells = collections.defaultdict(list)
            for x, g in zip(e, [g for g, m in zip(t.tags, mask) if m]):
                cells[(g.chip, g.kernel)].append(x)
            print(f"{form_id} {title}: n {mask.sum()} median {100*np.median(e):.1f} mean {100*e.mean():.1f} mean of cell medians {100*np.mean([np.median(v) for v in cells.values()]):.1f}  ({time.time()-started:.1f}s)", flush=True)
            if detail:
                for k, v in sorted(cells.items()):
                    print(f"    {100*np.median(v):5.1f}  n={len(v):4d}  {' '.join(k)}")

        every = np.ones(len(t), bool)
        s = time.time()
        show("in-sample", predict(form, t, fit(form, t, prior), list(prior.surface)), every, s)
        for key in ("chip", "engine"):
            s = time.time()
            pred = np.empty(len(t))
            vals = np.array([getattr(g, key) for g in t.tags])
            for v in sorted(set(vals)):
                tr, te = np.where(vals != v)[0], np.where(vals == v)[0]
                if len(tr) == 0:
                    pred[te] = np.nan
                    continue
                pred[te] = predict(form, t.take(te), fit(form, t.take(tr), prior), list(prior.surface))
            show(f"leave-{key}-out", pred, ~np.isnan(pred), s, detail=True)
        s = time.time()
        rng = np.random.default_rng(0)
        cell = np.array([f"{g.chip}|{g.kernel}|{g.engine}" for g in t.tags])
        seen = np.zeros(len(t), bool)
        for c in sorted(set(cell)):
            seen[rng.permutation(np.where(cell == c)[0])[:12]] = True
        pred = np.full(len(t), np.nan)
        te = np.where(~seen)[0]
        pred[te] = predict(form, t.take(te), fit(form, t.take(np.where(seen)[0]), prior), list(prior.surface))
        show("12 points a cell", pred, ~seen, s, detail=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
