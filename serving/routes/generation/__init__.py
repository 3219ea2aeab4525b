"""The OpenAI routes that generate text.

``bodies`` reads a request, ``routes`` chooses the variant and asks its backend, ``writers`` turns
what comes into OpenAI's objects, and ``response`` sends them; ``answers`` describes them.
``tokenizing`` has vLLM's two routes that only make and read tokens.
"""
