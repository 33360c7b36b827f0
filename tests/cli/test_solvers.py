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
