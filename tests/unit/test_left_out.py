"""What is said of points that are left out of a batch."""

from heartguard.models.common import Detail
from services.influx.src.left_out import LONGEST, SEVERAL, place, summary

TYPE = "the field 'f' is of type float, not string"


def lines(*numbers: int, message: str = TYPE) -> list[Detail]:
    return [Detail(path=f"/lines/{number}", message=message) for number in numbers]


def test_one_point() -> None:
    assert summary(1, 3, lines(17), {}) == f"1 of 3 points was not stored: line 17: {TYPE}"


def test_the_measurement_is_named_where_it_is_known() -> None:
    said = summary(2, 3, lines(1, 2), {1: "cpu", 2: "mem"})
    assert said == f"2 of 3 points were not stored: line 1: {TYPE} (in 'cpu'); line 2: {TYPE} (in 'mem')"


def test_points_with_the_same_reason_are_named_together() -> None:
    details = [*lines(1, 3, 4, 5), *lines(9, message="is after 2024-06-01T10:00:00Z"), *lines(10, 11)]
    assert summary(7, 9, details, {}) == (
        f"7 of 9 points were not stored: lines 1, 3-5, 10-11: {TYPE};"
        " line 9: the timestamp is after 2024-06-01T10:00:00Z"
    )


def test_of_a_point_the_first_reason_is_named() -> None:
    assert summary(1, 9, [*lines(4), *lines(4, message="another")], {}).endswith(f"line 4: {TYPE}")


def test_points_of_other_formats() -> None:
    details = [Detail(path="/points/0/fields/f", message=TYPE), Detail(path="/points/3", message=TYPE)]
    assert summary(2, 9, details, {}).endswith(f"points 0, 3: {TYPE}")


def test_many_are_counted() -> None:
    said = summary(500, 1000, lines(*range(1, 1001, 2)), {})
    assert said.endswith(f": lines 1, 3, 5, 7, 9, 11, 13, 15, 17, 19 and 490 more: {TYPE}")


def test_it_is_short_whatever_is_wrong() -> None:
    details = [one for number in range(1, 10_001) for one in lines(number, message=f"{number} {'x' * 5000}")]
    said = summary(8_388_608, 8_388_608, details, dict.fromkeys(range(1, 10_001), "m" * 300))
    assert len(said) <= LONGEST + 30
    named = said.count("; line") + 1
    assert named > 3
    assert said.endswith(f"; and {8_388_608 - named} more")


def test_what_is_not_known_for_sure_is_not_counted_as_lost() -> None:
    several = Detail(path="/lines", message="lines 5 to 9 may not have been stored: the store refuses it")
    assert summary(0, 9, [several], {}, unsettled=5) == (
        "0 of 9 points were not stored, and 5 more perhaps not: lines 5 to 9 may not have been stored:"
        " the store refuses it"
    )


def test_where_it_is() -> None:
    paths = ["/lines", "/lines/7", "/points/3/fields/f/4"]
    assert [place(Detail(path=path, message="")) for path in paths] == [SEVERAL, 7, 3]
