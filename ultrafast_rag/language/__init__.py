"""Natural language, whatever the stage: sentences, terms, text made safe."""
