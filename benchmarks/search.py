"""Growth with the gallery: top-50 search and scores, reidlib and faiss next to the floor.

faiss copies the gallery into its index; the copy counts as its memory, building it not as its time.
"""

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks.evaluation import score_all
from benchmarks.measure import TINY, Candidate, Size, floor_at, main
from reidlib.retrieval import Embedded
from reidlib.search import nearest
from reidlib.style import GREY, INK, LINES, MARKERS, PALETTE, WIDTH, save_figure, styled

K = 50
GALLERIES = (10_000, 30_000, 100_000, 300_000)
COLOURS = {"floor": GREY, "reidlib nearest": PALETTE[0], "reidlib standard": PALETTE[1],
           "faiss": PALETTE[2]}


def search_reidlib(query: Embedded, gallery: Embedded):
    return lambda: nearest(query.emb, gallery.emb, K)


def search_faiss(query: Embedded, gallery: Embedded):
    import faiss
    index = faiss.IndexFlatIP(gallery.emb.shape[1])
    index.add(gallery.emb)
    return lambda: index.search(query.emb, K)[::-1]


def agrees(found, query: Embedded, gallery: Embedded) -> bool:
    """The same images as a plain argsort of all similarities, which are all different."""
    return (found[0] == (-query.emb @ gallery.emb.T).argsort(1)[:, :K]).all()


def candidates(sizes: list[Size]) -> list[Candidate]:
    rows = []
    for size in sizes:
        rows += [
            floor_at(size),
            Candidate(f"reidlib nearest {K}", size, search_reidlib, agrees, ("numpy", "torch")),
            Candidate("reidlib standard scores", size,
                      lambda query, gallery: lambda: score_all(query, gallery, "standard"),
                      lambda found, query, gallery: 0 < found[0] < 1,
                      ("numpy", "pandas", "torch")),
            Candidate(f"faiss IndexFlatIP {K}", size, search_faiss, agrees, ("faiss-cpu",))]
    return rows


@styled
def scaling(table: pd.DataFrame) -> Figure:
    """Seconds and memory against the size of the gallery, a line a candidate."""
    gallery = table["size"].str.split(" x ").str[1].astype(int)
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6))
    for ax, column, label in ((axes[0], "seconds", "seconds (median of 5)"),
                              (axes[1], "peak_mb", "peak above the features, MB")):
        for i, name in enumerate(table["name"].unique()):
            colour = next((c for key, c in COLOURS.items() if name.startswith(key)), INK)
            rows = table["name"] == name
            ax.plot(gallery[rows], table.loc[rows, column], color=colour, ls=LINES[i],
                    marker=MARKERS[i], ms=6, label=name)
        ax.set(xscale="log", yscale="log", xlabel="gallery images", ylabel=label)
        ax.set_xticks(sorted(set(gallery)), [f"{n / 1000:g}k" for n in sorted(set(gallery))])
        ax.minorticks_off()
    fig.suptitle(f"{table['size'].iloc[0].split(' x ')[0]} queries, "
                 f"{table['size'].iloc[0].split(' x ')[2]} float32 values an image")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


if __name__ == "__main__":
    measured, folder = main("search", {
        "full": candidates([Size(200, n) for n in GALLERIES]),
        "small": candidates([TINY])})
    save_figure(scaling(measured), folder / "scaling.png")
