"""A tool for the pages on scripts and chats."""

POPULATION = {"Lyon": 520_000, "Marseille": 877_000, "Paris": 2_103_000}


def population(city: str) -> int:
    """Return how many people live in a city.

    Args:
        city: Name of the city, such as Paris.
    """
    return POPULATION[city]
