"""lib.images.grouping: images that share a protein or an antibody, through any chain, are one group."""

import numpy as np

from workflow_scripts.lib.images.grouping import connected, one_spelling


def together(columns: list[list[str]]) -> list[list[int]]:
    names = connected(columns, len(columns[0]))
    return [[row for row, name in enumerate(names) if name == kind] for kind in dict.fromkeys(names)]


def test_shared_values_connect_through_chains():
    genes = ["A", "A", "B", "C", "B", "D"]
    antibodies = ["1", "2", "2", "3", "4", "5"]
    # Rows 1 and 2 share antibody 2, so genes A and B are one group.
    assert together([genes, antibodies]) == [[0, 1, 2, 4], [3], [5]]
    assert together([genes]) == [[0, 1], [2, 4], [3], [5]]


def test_late_links_join_early_groups():
    assert together([["A", "B", "C", ""], ["1", "2", "3", "1"], ["", "", "x", "x"]]) == [[0, 2, 3], [1]]


def test_empty_values_connect_nothing():
    assert together([["", "", "A"], ["", "1", ""]]) == [[0], [1], [2]]


def test_equal_values_in_different_columns_connect_nothing():
    assert together([["x", "y"], ["y", "z"]]) == [[0], [1]]


def test_names_are_readable_and_distinct():
    assert connected([["A", "A", ""], ["1", "2", "A"]], 3) == ["A|0", "A|0", "A|2"]


def test_agrees_with_a_graph_search():
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(0)
    genes, antibodies = rng.integers(0, 900, 1000), rng.integers(0, 900, 1000)
    names = connected([[f"g{gene}" for gene in genes], [f"a{antibody}" for antibody in antibodies]], 1000)
    # Images link a gene and an antibody: two-sided graph with 1,800 nodes.
    graph = coo_matrix((np.ones(1000), (genes, 900 + antibodies)), shape=(1800, 1800))
    expected = connected_components(graph, directed=False)[1][genes]
    pairs = set(zip(names, expected.tolist(), strict=True))
    assert len(pairs) == len(set(names)) == len(set(expected.tolist()))
    assert 50 < len(pairs) < 900


def test_spellings_of_one_protein_are_one_group():
    assert connected([["TP53", "Tp53", "ACTB", "\u00e9", "e\u0301"]], 5) == [
        "TP53|0",
        "TP53|0",
        "ACTB|2",
        "\u00e9|3",
        "\u00e9|3",
    ]


def test_values_that_are_compared_as_equal_get_their_commonest_spelling():
    values = ["HeLa", "Hela", "HELA", "Hela", "", "U2OS", "\uff35\uff12\uff2f\uff33", "u2os"]
    assert list(one_spelling(np.array(values, dtype=object))) == ["Hela"] * 4 + [""] + ["U2OS"] * 3
