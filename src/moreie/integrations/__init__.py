"""moreie inside other libraries: a spaCy component, and Hugging Face data sets."""
