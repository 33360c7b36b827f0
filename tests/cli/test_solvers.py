"""``diffuse-fast solvers``: nothing that df.solvers() has is left out."""

import diffuse_fast as df


def test_every_solver_and_option_is_listed(run):
    result = run("solvers")
    assert result.exit_code == 0
    for solver in df.solvers().values():
        assert solver.name in result.stdout
        assert solver.paper in result.stdout
        for name, option in solver.options.items():
            line = next(row for row in result.stdout.splitlines() if row.split()[:2] == [solver.name, name])
            assert option.about in line


def test_a_bound_that_bounds_nothing_is_said_in_words(run):
    text = run("solvers").stdout
    assert "e+308" not in text
    lines = [row.split() for row in text.splitlines() if row.split()[1:2] == ["s_tmax"]]
    assert lines and all(line[2] == "unlimited" for line in lines)
    assert max(len(repr(solver)) for solver in df.solvers().values()) < 400
