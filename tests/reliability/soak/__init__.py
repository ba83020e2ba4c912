"""Break everything at random while work comes in, then audit the books: ``make soak``.

``plan`` says from a seed what will be done when, ``site`` holds the parts, ``faults`` breaks them,
``desk`` asks for work through the API as its users do, ``play`` does it all, ``books`` gathers what
there is to see in the end, ``audit`` judges it, and ``report`` tells of it.
"""
